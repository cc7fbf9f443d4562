# What a user's own app.py uses (docs/apps.md): `from boardlet import app`. Handlers are called with desired values,
# timers after their time; `set` gives a property's value. Whatever they raise is theirs, and stops nothing else.
from hashlib import sha256

from boardlet.health import trace
from boardlet.ticks import add, diff

handlers = {}
crash = None  # the end of the app's last traceback
digest = None  # of app.py, None where there is none
ill = set()  # timers that raised when they last ran, and 0 for an app that could not be loaded
_timers = []
_props = {}
_early = {}


def property(name):
    def register(function):
        handlers[name] = function
        return function

    return register


def every(seconds):
    def register(function):
        _timers.append([int(seconds * 1000), function, None])
        return function

    return register


def set(name, value):
    # Raises ValueError for a property that the model does not have, it or TypeError for a value not of its type.
    if not _props:
        _early[name] = value  # the model has not come yet
        return
    p = _props.get(name)
    if p is None:
        raise ValueError("no property " + name)
    p.value = p.fit(value)


def model(props):
    _props.clear()
    _props.update(props)
    for name in list(_early):
        try:
            set(name, _early.pop(name))
        except (ValueError, TypeError) as e:
            failed(e)


def load():
    # Runs app.py if there is one; a program that fails leaves the agent as it is.
    global digest
    try:
        with open("app.py", "rb") as f:
            digest = sha256(f.read()).digest()[:8]
    except OSError:
        return
    try:
        import app  # noqa: F401 - the user's module at the root, not this one
    except Exception as e:
        ill.add(0)
        failed(e)


def failed(e):
    global crash
    crash = trace(e)


def tick(now):
    # Runs the timers that are due; milliseconds until the next one.
    ms = 60000
    for timer in _timers:
        if timer[2] is None or diff(now, timer[2]) >= 0:
            timer[2] = add(now, timer[0])
            try:
                timer[1]()
                ill.discard(timer[1])
            except Exception as e:
                ill.add(timer[1])
                failed(e)
        ms = min(ms, diff(timer[2], now))
    return max(ms, 0)
