// The board's clock and its console: MPS2's counter of microseconds, and UART 0 with a buffer in front.
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"
#include "uart.h"

#define COUNTER (*(volatile uint32_t *)0x40028018)
#define PRESCALE (*(volatile uint32_t *)0x4002801C)
#define SYSTICK ((volatile uint32_t *)0xE000E010)
#define UART0 ((volatile uint32_t *)0x40004000)
#define ISER (*(volatile uint32_t *)0xE000E100)
#define ICPR (*(volatile uint32_t *)0xE000E280)
#define ICSR (*(volatile uint32_t *)0xE000ED04)

static uint8_t buffer[512];
static uint16_t head, tail;

void hal_init(void) {
    PRESCALE = 24; // 25 MHz / 25
    // A tick each millisecond and a byte at the UART wake the processor, so that waiting costs the host nothing.
    __asm volatile ("cpsid i");
    SYSTICK[1] = 25000 - 1;
    SYSTICK[2] = 0;
    SYSTICK[0] = 7;
    UART0[2] |= 8; // an interrupt for each byte that comes
    ISER = 1;
}

static void idle(void) {
    __asm volatile ("wfi");
    ICSR = 1 << 25; // woken is all that was wanted: nobody serves these
    UART0[3] = 2;
    ICPR = 1;
}

void uart_pump(void) {
    for (;;) {
        uint16_t next = (head + 1) % sizeof(buffer);
        if (next == tail) {
            return; // the UART holds the host back
        }
        int c = uart_rx_chr();
        if (c < 0) {
            return;
        }
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            buffer[head] = c;
            head = next;
        }
    }
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    uart_pump();
    return (flags & MP_STREAM_POLL_WR) | (head != tail ? flags & MP_STREAM_POLL_RD : 0);
}

int mp_hal_stdin_rx_chr(void) {
    for (;;) {
        uart_pump();
        if (head != tail) {
            int c = buffer[tail];
            tail = (tail + 1) % sizeof(buffer);
            return c;
        }
        mp_handle_pending(true);
        idle();
    }
}

mp_uint_t mp_hal_stdout_tx_strn(const char *str, size_t len) {
    uart_tx_strn(str, len);
    return len;
}

mp_uint_t mp_hal_ticks_us(void) {
    return COUNTER;
}

mp_uint_t mp_hal_ticks_ms(void) {
    static uint32_t last;
    static uint64_t high;
    uint32_t now = COUNTER;
    if (now < last) {
        high += 1ull << 32;
    }
    last = now;
    return (high | now) / 1000;
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return COUNTER;
}

void mp_hal_delay_us(mp_uint_t us) {
    uint32_t start = COUNTER;
    while (COUNTER - start < us) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint32_t start = mp_hal_ticks_ms();
    while ((uint32_t)mp_hal_ticks_ms() - start < ms) {
        uart_pump();
        mp_handle_pending(true);
        idle();
    }
}

uint64_t mp_hal_time_ns(void) {
    return (uint64_t)mp_hal_ticks_ms() * 1000000;
}
