"""The backend is chosen in one place, once, quietly."""

import os
import subprocess
import sys

import pytest

from amortnlme.core.errors import UsageError
from amortnlme.neural.backend import backend_name, use_backend


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_tensorflow_is_the_default_and_the_root_logger_is_left_alone():
    code = (
        "import logging; before = list(logging.getLogger().handlers), logging.getLogger().level\n"
        "from amortnlme.neural.backend import backend_name\n"
        "name = backend_name()\n"
        "assert (list(logging.getLogger().handlers), logging.getLogger().level) == before\n"
        "assert not logging.getLogger('x').isEnabledFor(logging.INFO)\n"
        "print(name)"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "tensorflow"


def test_an_unknown_backend_is_refused():
    with pytest.raises(UsageError) as caught:
        use_backend("torch")
    assert caught.value.code == "E_BACKEND_UNKNOWN"


def test_a_late_switch_is_refused():
    other = {"tensorflow": "jax", "jax": "tensorflow"}[backend_name()]
    with pytest.raises(UsageError) as caught:
        use_backend(other)
    assert caught.value.code == "E_BACKEND_LATE"


def test_asking_again_for_the_running_backend_gives_the_same_keras():
    assert use_backend(backend_name()) is use_backend()
