"""The wheel and the editable install, from outside the checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments, cwd, **environment):

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_the_wheel_holds_everything_and_imports(tmp_path):
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("tfig-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"tfig/__init__.py", "tfig/kernels/path.py", "tfig/methods/path.py", "tfig/serving/__init__.py"} <= names
    assert {"tfig_command.py", "tfig/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "scripts", "serving", "benchmarks"))]
    target = tmp_path / "installed"
    run("-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel), cwd=tmp_path)
    code = "import tfig, tfig.serving, tfig.kernels.mask; print(tfig.__file__, tfig.serving.__file__, tfig.__version__)"
    printed = run("-c", code, cwd=tmp_path, PYTHONPATH=str(target)).split()
    assert all(path.startswith(str(target)) for path in printed[:2])


def test_the_editable_install_imports(tmp_path):
    printed = run("-c", "import tfig, tfig.serving; print(tfig.__file__, tfig.serving.__file__)", cwd=tmp_path).split()
    assert printed == [str(ROOT / "tfig/__init__.py"), str(ROOT / "serving/__init__.py")]
