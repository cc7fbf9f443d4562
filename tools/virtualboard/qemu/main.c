// Boots as a board does: file system, boot.py, main.py, then the prompt; a soft reset begins again.
#include "py/compile.h"
#include "py/gc.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"

static uint32_t gc_heap[MICROPY_HEAP_SIZE / sizeof(uint32_t)];

void hal_init(void);

int main(int argc, char **argv) {
    hal_init();
    mp_stack_ctrl_init();
    mp_stack_set_limit(10240);
    for (;;) {
        gc_init(gc_heap, (char *)gc_heap + MICROPY_HEAP_SIZE);
        mp_init();
        pyexec_frozen_module("_boot.py", false);
        int code = pyexec_file_if_exists("boot.py");
        if (pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL && !(code & PYEXEC_FORCED_EXIT)) {
            pyexec_file_if_exists("main.py");
        }
        while ((pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl()) == 0) {
        }
        mp_printf(&mp_plat_print, "MPY: soft reboot\n");
        gc_sweep_all();
        mp_deinit();
    }
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *val) {
    mp_printf(&mp_plat_print, "uncaught NLR\n");
    for (;;) {
    }
}
