"""What `boardlet` has a board do at its prompt: programs in MicroPython, which print one Python literal or nothing."""

from __future__ import annotations

from typing import Final

INFO: Final = """
import sys, os
v = os.statvfs('.')
i = sys.implementation
print((i.name, tuple(i.version[:3]), sys.platform, getattr(i, '_machine', ''), getattr(i, '_mpy', 0), v[0] * v[3]))
"""
HASH: Final = """
import hashlib, binascii
try:
    h = hashlib.sha256()
    with open({path!r}, 'rb') as f:
        while True:
            b = f.read(512)
            if not b:
                break
            h.update(b)
    print(binascii.hexlify(h.digest()).decode())
except OSError:
    print('')
"""
RENAME: Final = """
import os
try:
    os.rename({new!r}, {path!r})
except OSError as e:
    if e.errno != 17:  # FAT: EEXIST
        raise
    os.remove({path!r})
    os.rename({new!r}, {path!r})
"""
MAKE: Final = """
import os
p = ''
for part in {folder!r}.split('/'):
    p += part
    try:
        os.mkdir(p)
    except OSError:
        pass
    p += '/'
"""
REMOVE: Final = """
import os
try:
    os.remove({path!r})
except OSError:
    pass
"""
REMOVE_FOLDER: Final = """
import os
try:
    os.rmdir({path!r})
except OSError:
    pass
"""
LIST: Final = """
import os
try:
    print(os.listdir({folder!r}))
except OSError:
    print([])
"""
HAS: Final = """
import os
try:
    os.stat({path!r})
    print(True)
except OSError:
    print(False)
"""
WALK: Final = """
import os
def w(p):
    for e in os.ilistdir(p or '.'):
        n = p + '/' + e[0] if p else e[0]
        if e[0] in ('.', '..'):
            continue
        if e[1] == 0x4000:
            w(n)
        else:
            f.append(n)
f = []
w('')
print(f)
"""
# MicroPython mounts the first of its ROMFS partitions, if it has any. Mapped or read, it is a buffer.
ROM_BYTES: Final = """
try:
    import vfs
    print(len(memoryview(vfs.rom_ioctl(2, 0))) if vfs.rom_ioctl(1) > 0 else 0)
except (ImportError, AttributeError, TypeError, OSError):
    print(0)
"""
ROM_HASH: Final = """
import hashlib, binascii, vfs
h = hashlib.sha256()
b = memoryview(vfs.rom_ioctl(2, 0))
for i in range(0, {length}, 512):
    h.update(b[i : min(i + 512, {length})])
print(binascii.hexlify(h.digest()).decode())
"""
# Names as bytes: writing that was interrupted leaves some that are no text.
ROM_FILES: Final = """
import os, vfs
def w(p):
    for e in os.ilistdir(p):
        n = p + b'/' + e[0]
        if e[1] == 0x4000:
            w(n)
        else:
            f.append(n[5:])
f = []
try:
    if vfs.rom_ioctl(1) > 0:
        w(b'/rom')
except (AttributeError, OSError):
    pass
print(f)
"""
ROM_FOUND: Final = """
import os, sys
try:
    os.stat('/rom/{name}')
    print('/rom' in sys.path)
except OSError:
    print(False)
"""
# The agent on ESP32 keeps a copy of its configuration outside the file system (boardlet.config).
FORGET: Final = """
try:
    from esp32 import NVS
    n = NVS('boardlet')
    n.erase_key('config')
    n.commit()
except (ImportError, OSError):
    pass
"""
# Nothing is run of an agent in ROMFS that may be half there: main.py is away while one is written (boardlet_cli.flash).
_WHOLE: Final = """
import os, sys
try:
    os.stat('main.py')
except OSError:
    sys.path[:] = [p for p in sys.path if not p.startswith('/rom')]
"""
HEALTH: Final = (
    _WHOLE
    + """
import gc
gc.collect()
r = {'heap': gc.mem_free()}
try:
    from boardlet.store import Store
    from boardlet_wire import cbor
    s = Store('state')
    b = s.get('boot')
    c = s.get('crash')
    r['boot'] = cbor.loads(b) if b else None
    r['crash'] = c.decode() if c else None
except Exception as e:
    r['error'] = repr(e)
print(r)
"""
)

# Frozen modules come after files of the same name, so that only a look past these shows them.
TLS: Final = """
try:
    import tls
    c = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    print((hasattr(c, 'load_verify_locations'), hasattr(c, 'psk_key')))
except (ImportError, AttributeError):
    print((False, False))
"""
FROZEN: Final = """
import sys
p, sys.path[:] = sys.path[:], ['.frozen']
m = sys.modules.pop('boardlet', None)
try:
    import boardlet
    print(repr(boardlet.__version__))
except (ImportError, AttributeError):
    print(None)
sys.path[:] = p
sys.modules.pop('boardlet', None)
"""
# A board that a person resets has not failed: this boot counts neither towards safe mode nor against the desired state
# that is being tried (boardlet.health keeps the record). A board without an agent has none.
LEAVE: Final = (
    _WHOLE
    + """
import time, machine
try:
    from boardlet.store import Store
    from boardlet_wire import cbor
    s = Store('state')
    r = cbor.loads(s.get('boot'))
    r[1] = r[3] = 0
    s.put('boot', cbor.dumps(r))
except Exception:
    pass
time.sleep_ms(50)
machine.{how}()
"""
)
