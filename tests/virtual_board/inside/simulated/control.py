# Inputs and notes are small files beside the board, read at every access.


def get(name, default):
    try:
        file = files.open("/" + name, "r")
    except OSError:
        return default
    text = file.read().strip()
    file.close()
    return text


def put(name, text):
    file = files.open("/" + name, "w")
    file.write(text)
    file.close()


def die(kind):  # sys.exit() would end in the REPL
    put("reset_kind", kind)
    while True:
        real_os.system("kill -9 $PPID")
