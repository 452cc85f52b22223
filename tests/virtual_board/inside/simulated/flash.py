# A flash of blocks in one file of the machine, with a LittleFS2 on it, as the ESP32 port has.
import vfs

BLOCK = 4096


class Flash:
    def __init__(self, path, blocks):
        self._blocks = blocks
        try:
            self._file = open(path, "r+b")
        except OSError:
            with open(path, "wb") as file:
                for _ in range(blocks):
                    file.write(b"\xff" * BLOCK)
            self._file = open(path, "r+b")

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK + offset)
        self._file.write(buffer)
        self._file.flush()

    def ioctl(self, operation, argument):
        if operation == 4:
            return self._blocks
        if operation == 5:
            return BLOCK
        if operation == 6:
            return 0


def mounted(path, size_kb):
    flash = Flash(path, size_kb * 1024 // BLOCK)
    try:
        return vfs.VfsLfs2(flash)
    except OSError:  # blank, or no file system: the port formats it too
        vfs.VfsLfs2.mkfs(flash)
        return vfs.VfsLfs2(flash)
