# Sensirion SHT30, SHT31 and SHT35: temperature in degrees Celsius or relative humidity in per cent.
from drivers.i2c import I2cDriver


def crc8(data):
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc


class Driver(I2cDriver):
    def __init__(self, spec):
        # One measurement of high repeatability, at most 15.5 ms, without clock stretching.
        super().__init__(spec, 20, (b"\x24\x00",), 6)
        self.humidity = spec.get(10, 0)

    def read(self):
        raw = self.sensor.get()
        if raw is None:
            return None
        # Temperature and humidity have a CRC each: what is wrong with one does not concern the other.
        raw = raw[3 * self.humidity : 3 * self.humidity + 3]
        if crc8(raw[:2]) != raw[2]:
            raise ValueError("wrong CRC")
        n = (raw[0] << 8 | raw[1]) / 65535
        return 100 * n if self.humidity else 175 * n - 45
