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
    assert {"tfig_command.py", "tfig/py.typed", "tfig/serving/deploy/kubernetes.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests", "scripts", "serving", "benchmarks"))]
    target = tmp_path / "installed"
    run("-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel), cwd=tmp_path)
    code = "import tfig, tfig.serving, tfig.kernels.mask; print(tfig.__file__, tfig.serving.__file__, tfig.__version__)"
    printed = run("-c", code, cwd=tmp_path, PYTHONPATH=str(target)).split()
    assert all(path.startswith(str(target)) for path in printed[:2])


def test_the_editable_install_imports(tmp_path):
    printed = run("-c", "import tfig, tfig.serving; print(tfig.__file__, tfig.serving.__file__)", cwd=tmp_path).split()
    assert printed == [str(ROOT / "tfig/__init__.py"), str(ROOT / "serving/__init__.py")]


def test_deployment_files_say_the_same():
    import yaml

    folder = ROOT / "serving" / "deploy"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["serving"]
    deployment, service, scaler, budget = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert compose["image"] == container["image"] and compose["command"] == container["args"]
    flags = dict(flag.removeprefix("--").split("=") for flag in container["args"])
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"grpc": flags["port"], "rest": flags["rest_api_port"]} == {"grpc": "8500", "rest": "8501"}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{flags['model_name']}", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"]["port"] == "grpc"
    assert {"cpu", "memory"} == set(container["resources"]["requests"]) == set(container["resources"]["limits"])
    (volume,), (mount,) = deployment["spec"]["template"]["spec"]["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"] and flags["model_base_path"].startswith(mount["mountPath"])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert int(flags["grpc_max_threads"]) > 0 and flags["enable_per_model_batching_parameters"] == "true"
