# Rohm BH1750: illuminance in lux.
from drivers.i2c import I2cDriver


class Driver(I2cDriver):
    def __init__(self, spec):
        # Power on, one measurement of high resolution, at most 180 ms; it powers down by itself.
        super().__init__(spec, 180, (b"\x01", b"\x20"), 2)

    def read(self):
        raw = self.sensor.get()
        return None if raw is None else (raw[0] << 8 | raw[1]) / 1.2
