import os
import signal
import subprocess
import sys
import textwrap

from agentrft.cli.interrupt import interruptible


def test_the_first_ctrl_c_only_asks_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_ends_the_process_at_once() -> None:
    script = """
        import os, signal, time
        from agentrft.cli.interrupt import interruptible
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 130
    assert "stopping after this step" in done.stderr
    assert "aborted; what was checkpointed is kept" in done.stderr
