# What a firmware build of your own freezes: the agent then costs no heap for its code.
#
#   make -C ports/rp2 BOARD=RPI_PICO_W FROZEN_MANIFEST=<here>/boards/rp2_pico_w/manifest.py
#
# `umqtt` names a folder that has umqtt/simple.py; without it MicroPython's own library is taken.
options.defaults(umqtt="", opt=3)

package("boardlet", opt=options.opt)
package("boardlet_wire", files=("__init__.py", "cbor.py", "seal.py", "topic.py"), opt=options.opt)
package("drivers", opt=options.opt)
package("rotation", opt=options.opt)
module("main.py", opt=options.opt)
if options.umqtt:
    package("umqtt", base_path=options.umqtt, opt=options.opt)
else:
    require("umqtt.simple")
