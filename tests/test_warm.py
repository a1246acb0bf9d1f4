"A warm Python ends, is stopped and hands on what it was given as a cold one does."
import multiprocessing, os, signal, subprocess, sys, time
from pathlib import Path

import pytest

SAID = """import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["WORD"], sys.path[0], sys.stdin.read(), "synthlab" in sys.modules, "torch" in sys.modules)
print("error", file=sys.stderr)"""

def start(*words, **more): return subprocess.Popen([sys.executable, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

def test_it_has_what_it_was_given(warm, tmp_path):
    "Words, folder, environment and streams; as a string, a module and a script."
    (tmp_path/"said.py").write_text(SAID)
    for words, first in (("-c", SAID), ""), (("-m", "said"), tmp_path), ((tmp_path/"said.py",), tmp_path):
        out, err = start(*words, "a", "b", cwd=tmp_path, env=os.environ | {"WORD": "given"}).communicate("told")
        assert (out, err) == (f"['a', 'b'] {tmp_path} given {first} told False True\n", "error\n")

@pytest.mark.parametrize("code, ended", [("", 0), ("raise SystemExit(3)", 3), ("raise SystemExit('why')", 1), ("1/0", 1), ("raise KeyboardInterrupt", -2),
                                         ("import os; os.kill(os.getpid(), 9)", -9), ("import os; os._exit(7)", 7), ("import atexit; atexit.register(print, 'last')", 0)])
def test_it_ends_as_python_does(code, ended, warm):
    "With the code that it says and what it has to say, which a cold one confirms."
    def said(python):
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr.splitlines()[-1:]
    assert said(sys.executable) == said(sys._base_executable) and said(sys.executable)[0] == ended

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_is_stopped(number, warm):
    "Signals reach it, and it does not outlive the process that stands for it."
    process = start("-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(10) == -number
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists(): assert time.monotonic() < end; time.sleep(.01)

def answer(x): return x + 1, "torch" in sys.modules

def test_processes_of_multiprocessing_are_warm_too(warm):
    with multiprocessing.get_context("spawn").Pool(1) as pool: assert pool.map(answer, [1]) == [(2, True)]
