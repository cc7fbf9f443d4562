// MicroPython's own port for QEMU, with what a board has and that port leaves out: files, ROMFS, time, Ctrl-C, boot scripts.
#include "mpconfigport_qemu.h"

#undef MICROPY_PY_SYS_STDIO_BUFFER
#undef MICROPY_PY_TIME
#undef MICROPY_VFS_ROM_IOCTL
#define MICROPY_PY_SYS_STDIO_BUFFER (1)
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (0)
#define MICROPY_PY_TIME_TIME_TIME_NS (0)
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_VFS_ROM_IOCTL (1)

// Ctrl-C has to be seen while code runs: the UART is looked at every so many jumps of the VM.
void uart_pump(void);
#define MICROPY_VM_HOOK_COUNT (256)
#define MICROPY_VM_HOOK_INIT static unsigned int vm_hook_left = MICROPY_VM_HOOK_COUNT;
#define MICROPY_VM_HOOK_POLL if (--vm_hook_left == 0) { vm_hook_left = MICROPY_VM_HOOK_COUNT; uart_pump(); }
#define MICROPY_VM_HOOK_LOOP MICROPY_VM_HOOK_POLL
#define MICROPY_VM_HOOK_RETURN MICROPY_VM_HOOK_POLL
