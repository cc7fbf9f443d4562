# A pin that is dimmed: the property's range is the duty cycle's. Nothing moves before the first value comes.
from machine import PWM, Pin


class Driver:
    def __init__(self, spec):
        self.spec = spec
        self.pwm = None

    def _turn(self, n):
        return 65535 - n if self.spec.get(2) else n

    def set(self, value):
        spec = self.spec
        n = self._turn(min(65535, max(0, round((value - spec.get(5, 0)) / spec.get(4, 1)))))
        if self.pwm is None:
            self.pwm = PWM(Pin(spec[1][0]), freq=spec.get(7, 1000), duty_u16=n)
        else:
            self.pwm.duty_u16(n)
        self.value = value
        self.duty = self.pwm.duty_u16()  # as far as the timer resolves it

    def read(self):
        if self.pwm is None:
            return None
        n = self.pwm.duty_u16()
        return self.value if n == self.duty else self._turn(n) * self.spec.get(4, 1) + self.spec.get(5, 0)

    def close(self):
        if self.pwm:
            self.pwm.deinit()
