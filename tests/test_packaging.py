"""The wheel and the editable install, from outside the checkout."""

import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
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
    """The source distribution is built, and the wheel from it; both are as PyPI takes them."""
    source = tmp_path / "source"
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in kept:
        if not name.startswith(("tests/", "benchmarks/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run("-m", "build", "--no-isolation", "-o", str(tmp_path), str(source), cwd=tmp_path)
    (wheel,), (archive,) = tmp_path.glob("tfig-*.whl"), tmp_path.glob("tfig-*.tar.gz")
    said = run("-m", "twine", "check", "--strict", str(wheel), str(archive), cwd=tmp_path)
    assert said.count("PASSED") == 2 and "WARNING" not in said
    metadata = (
        zipfile.ZipFile(wheel)
        .read(next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA")))
        .decode()
    )
    for field in ("Summary", "License", "Keywords", "Requires-Python", "Description-Content-Type"):
        assert f"\n{field}: " in metadata, field
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"tfig/__init__.py", "tfig/kernels/path.py", "tfig/methods/path.py", "tfig/serving/__init__.py"} <= names
    assert {"tfig_command.py", "tfig/py.typed", "tfig/serving/deploy/kubernetes.yaml"} <= names
    assert {"tfig/pages/report.css", "tfig/pages/report.js", "tfig/plots/sheet.py"} <= names
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
    composed = yaml.safe_load((folder / "compose.yaml").read_text())
    compose = composed["services"]["serving"]
    config, deployment, service, scaler, budget = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert compose["image"] == container["image"] and compose["command"] == container["args"]
    flags = dict(flag.removeprefix("--").split("=") for flag in container["args"])
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"grpc": flags["port"], "rest": flags["rest_api_port"]} == {"grpc": "8500", "rest": "8501"}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 8500} and flags["enable_grpc_healthcheck_service"] == "true"
    assert f"/v1/models/{flags['model_name']} " in container["readinessProbe"]["exec"]["command"][-1]
    pod = deployment["spec"]["template"]["spec"]
    assert int(container["lifecycle"]["preStop"]["exec"]["command"][-1]) < pod["terminationGracePeriodSeconds"]
    assert {"cpu", "memory"} == set(container["resources"]["requests"]) == set(container["resources"]["limits"])
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"] for mount in container["volumeMounts"]]
    assert flags["model_base_path"].startswith(container["volumeMounts"][0]["mountPath"])
    (name,) = config["data"]
    assert flags["monitoring_config_file"] == f"{container['volumeMounts'][1]['mountPath']}/{name}"
    assert composed["configs"]["monitoring"]["content"] == config["data"][name].strip()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert int(flags["grpc_max_threads"]) > 0 and flags["enable_per_model_batching_parameters"] == "true"


def test_the_probe_tells_a_model_that_is_there_from_one_that_loads():
    import yaml

    documents = yaml.safe_load_all((ROOT / "serving" / "deploy" / "kubernetes.yaml").read_text())
    deployment = next(one for one in documents if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    said = {"state": ""}

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)  # as TensorFlow Serving, in any state
            self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": [{"version": "1", **said}]}, indent=1).encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = container["readinessProbe"]["exec"]["command"]
        probe = [*command[:-1], command[-1].replace("/8501", f"/{server.server_port}")]
        for said["state"], ready in (("LOADING", False), ("AVAILABLE", True), ("END", False)):
            assert (subprocess.run(probe, check=False).returncode == 0) == ready
        server.shutdown()
