# Wi-Fi that is there unless the file wifi_down is; with the file wifi ("name\npassword") only for who knows both.
_get = control["get"]
STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD, STAT_BEACON_TIMEOUT = 201, 202, 200


class WLAN:
    IF_STA, IF_AP = 0, 1
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2

    def __init__(self, interface=0):
        self._active = False
        self._asked = None

    def active(self, wanted=None):
        if wanted is not None:
            self._active = bool(wanted)
            if not wanted:
                self._asked = None
        return self._active

    def connect(self, ssid=None, key=None, **options):
        if not self._active:
            raise OSError("Wifi Not Started")
        self._asked = (ssid, key)

    def disconnect(self):
        self._asked = None

    def status(self, what=None):
        if what == "rssi":
            return int(_get("rssi", "-55"))
        if self._asked is None:
            return STAT_IDLE
        if _get("wifi_down", None) is not None:
            return STAT_NO_AP_FOUND
        known = _get("wifi", None)
        if known is None or tuple(known.split("\n")) == self._asked:
            return STAT_GOT_IP
        return STAT_WRONG_PASSWORD if known.split("\n")[0] == self._asked[0] else STAT_NO_AP_FOUND

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def ifconfig(self, fields=None):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    def config(self, name=None, **settings):
        return bytes.fromhex(_get("unique_id", "24:6f:28:aa:bb:cc").replace(":", "")) if name == "mac" else None

    def scan(self):
        return []


def hostname(name=None):
    return "virtual"


def country(code=None):
    return "XX"
