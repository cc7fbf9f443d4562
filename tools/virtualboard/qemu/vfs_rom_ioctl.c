// The board's ROMFS partition: RAM after the littlefs, which a reset keeps, written as NOR flash is. An erase sets every
// bit of a sector, a write clears bits and sets none, and it writes whole words. It is read in place, as mapped flash is.
#include "py/mperrno.h"
#include "py/objarray.h"
#include "py/runtime.h"
#include "extmod/vfs.h"

#define START (0x21100000)
#define SIZE (128 * 1024)
#define SECTOR (4096)
#define WORD (4)

static const MP_DEFINE_MEMORYVIEW_OBJ(partition, 'B', 0, SIZE, (void *)START);

mp_obj_t mp_vfs_rom_ioctl(size_t n_args, const mp_obj_t *args) {
    mp_int_t command = mp_obj_get_int(args[0]);
    if (command == MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS) {
        return MP_OBJ_NEW_SMALL_INT(1);
    }
    if (n_args < 2 || mp_obj_get_int(args[1]) != 0) {
        return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
    }
    uint8_t *memory = (uint8_t *)START;
    if (command == MP_VFS_ROM_IOCTL_GET_SEGMENT) {
        return MP_OBJ_FROM_PTR(&partition);
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE_PREPARE && n_args == 3) {
        mp_int_t length = mp_obj_get_int(args[2]);
        if (length < 0 || length > SIZE) {
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        }
        memset(memory, 0xff, (length + SECTOR - 1) / SECTOR * SECTOR);
        return MP_OBJ_NEW_SMALL_INT(WORD);
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE && n_args == 4) {
        mp_int_t offset = mp_obj_get_int(args[2]);
        mp_buffer_info_t from;
        mp_get_buffer_raise(args[3], &from, MP_BUFFER_READ);
        if (offset < 0 || offset > SIZE || from.len > (size_t)(SIZE - offset) || offset % WORD || from.len % WORD) {
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        }
        for (size_t i = 0; i < from.len; i++) {
            memory[offset + i] &= ((const uint8_t *)from.buf)[i];
        }
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE_COMPLETE) {
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
}
