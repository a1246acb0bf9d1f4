"""A Python that has its libraries loaded already: for processes of which a test wants what they do, not how they begin.

A process that trains spends five CPU seconds on importing torch and its kin, and one on the training. Here one server a worker
imports them, but nothing of this package, and forks for every process that is started by `Warm.executable`. That file looks
like a Python to whoever starts it: it takes `-c`, `-m` or a script, hands its folder, environment and open files to the fork,
passes signals on, ends as the fork ends, and the fork is killed when it is. The fork imports the package itself and runs in a
`__main__` of its own; what it starts in turn by `sys.executable` or `multiprocessing` is warm, too. Other than a cold process
it has a process id that is not its starter's child, and modules of others that it did not ask for: a test that looks at these
starts the real one."""
import atexit, fcntl, gc, importlib.util, json, os, runpy, selectors, signal, socket, subprocess, sys, tempfile, threading, traceback, types
from pathlib import Path

LIBRARIES = ("numpy", "pandas", "pyarrow.parquet", "scipy.stats", "scipy.optimize", "scipy.signal", "sklearn.isotonic", "sklearn.linear_model",
             "arch.univariate", "matplotlib.pyplot", "hydra", "hydra.utils", "tqdm.auto", "torch", "torch._dynamo", "torch.distributed.launcher.api", "torch.utils.data",
             "safetensors.torch", "multiprocessing.spawn", "zarr", "distributed", "ipykernel.kernelapp")
REAL = sys.executable

class Warm:
    "The server, and the file that takes the place of `sys.executable`."
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()         # a socket's address must be short
        self.executable, address = Path(self.folder.name)/"python", Path(self.folder.name)/"socket"
        self.executable.write_text(f"#!{REAL} -IS\nREAL, ADDRESS = {REAL!r}, {str(address)!r}\n{CLIENT}")
        self.executable.chmod(0o700)
        self.process = subprocess.Popen([REAL, __file__, str(address)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout.readline() == b"ready\n"

    def close(self): self.process.communicate(); self.folder.cleanup()

# what the file does: standard library only, and as little of it as can be

CLIENT = '''
import json, os, signal, socket, sys
words = sys.argv[1:]
while words and words[0] in ("-B", "-u"): words.pop(0)              # as good as said: the server was started so
if not words or words[0].startswith("-") and words[0] not in ("-c", "-m"): os.execv(REAL, [REAL, *sys.argv[1:]])
fds = sorted(fd for fd in map(int, os.listdir("/dev/fd")) if os.path.exists(f"/dev/fd/{fd}"))
asked = dict(words=words, cwd=os.getcwd(), env=dict(os.environ), fds=fds, leads=os.getsid(0) == os.getpid(), executable=sys.argv[0])
server = socket.socket(socket.AF_UNIX); server.connect(ADDRESS)
text = json.dumps(asked).encode()
pid, early = 0, []
def passed(number, frame): os.kill(pid, number) if pid else early.append(number)
for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT: signal.signal(number, passed)
socket.send_fds(server, [len(text).to_bytes(8, "big")], fds)
server.sendall(text)
said = server.makefile()
pid = int(said.readline())
for number in early: os.kill(pid, number)
code = int(said.readline() or -9)
if code >= 0: os._exit(code)
signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
os.kill(os.getpid(), -code)
'''

# the server

def received(connection):
    "What a file asks for, and the files that it has open; None where it has gone."
    head, fds, *_ = socket.recv_fds(connection, 8, 250)
    asked = b""
    while head and len(asked) < int.from_bytes(head, "big"):
        more = connection.recv(1 << 16)
        if not more: break
        asked += more
    return (json.loads(asked), fds) if head else (None, fds)

def serve(address):
    "Fork for each that asks; what was asked is returned, in the fork."
    listener = socket.socket(socket.AF_UNIX); listener.bind(address); listener.listen(64)
    bell, ring = socket.socketpair(); bell.setblocking(False); ring.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None); signal.set_wakeup_fd(ring.fileno())
    asking, forks = selectors.DefaultSelector(), {}
    for source in listener, bell, 0: asking.register(source, selectors.EVENT_READ)
    os.write(1, b"ready\n")
    while True:
        for key, _ in asking.select():
            if key.fileobj == 0:                                                # its owner has gone
                for pid in forks.values(): os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj is bell: bell.recv(4096)
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                asked, fds = received(connection)
                pid = os.fork() if asked else None
                if pid == 0:
                    signal.set_wakeup_fd(-1); signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    asking.close()
                    for open_ in listener, bell, ring, connection, *forks: open_.close()
                    return asked, fds
                for fd in fds: os.close(fd)
                if pid is None: connection.close(); continue
                forks[connection] = pid
                asking.register(connection, selectors.EVENT_READ)
                tell(connection, pid)
            elif key.fileobj in forks: os.kill(forks[key.fileobj], signal.SIGKILL); asking.unregister(key.fileobj)     # the file was killed
        while (ended := next((c for c, pid in forks.items() if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)), None)):
            code = os.waitstatus_to_exitcode(os.waitpid(forks.pop(ended), 0)[1])
            if ended in asking.get_map(): asking.unregister(ended)
            tell(ended, code); ended.close()

def tell(connection, number):
    try: connection.sendall(f"{number}\n".encode())
    except OSError: pass

def become(asked, fds):
    "Take over files, folder, environment and session of the one that asked."
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500) for fd in fds]          # out of the way of the numbers that are wanted
    for fd in {0, 1, 2, *fds}: os.close(fd)
    for fd, wanted in zip(kept, asked["fds"]): os.dup2(fd, wanted); os.close(fd)
    if asked["leads"]: os.setsid()
    os.chdir(asked["cwd"])
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear(); os.environ.update(asked["env"])
    sys.executable = asked["executable"]
    import multiprocessing.process, multiprocessing.spawn, numpy, torch
    multiprocessing.spawn.set_executable(sys.executable); multiprocessing.process.ORIGINAL_DIR = os.getcwd()
    numpy.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    words = asked["words"]
    first = str(Path(words[0]).resolve().parent) if words[0] not in ("-c", "-m") else "" if words[0] == "-c" else os.getcwd()
    after = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [first, *filter(None, after), *(p for p in sys.path[1:] if p not in before)]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    return words

def carry_out(words):
    "Run what was asked for in a `__main__` of its own; the exit code, as Python has it."
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        if words[0] == "-m": sys.argv = words[1:]; runpy._run_module_as_main(words[1])
        elif words[0] == "-c": sys.argv = ["-c", *words[2:]]; exec(compile(words[1], "<string>", "exec"), main.__dict__)
        else:
            sys.argv, main.__file__ = words, words[0]
            exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int): return e.code or 0
        print(e.code, file=sys.stderr); return 1
    except BaseException as e:
        traceback.print_exception(type(e), e, e.__traceback__.tb_next)
        return -signal.SIGINT if isinstance(e, KeyboardInterrupt) else 1
    return 0

def end(code):
    "Threads and what is to be done at exit, but nothing is torn down: that would touch, and so copy, all that is shared."
    threading._shutdown(); atexit._run_exitfuncs()
    for stream in sys.stdout, sys.stderr:
        if stream and not stream.closed: stream.flush()
    if code < 0: signal.signal(-code, signal.SIG_DFL); os.kill(os.getpid(), -code)
    os._exit(code & 255)

if __name__ == "__main__":
    for library in LIBRARIES:
        if importlib.util.find_spec(library.partition(".")[0]): importlib.import_module(library)        # some come with extras
    gc.collect(); gc.freeze()
    end(carry_out(become(*serve(sys.argv[1]))))
