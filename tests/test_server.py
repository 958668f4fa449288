"""The embedded server asked with raw stubs: TensorFlow Serving's statuses, limits, versions, TLS and faults."""

import asyncio
import concurrent.futures
import contextlib
import logging
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
import trustme
import zoo
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keras import layers as L
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import tfig
from tfig.serving import Client, ServingError, answers, guard, protocol, serve
from tfig.serving.servable import Servable

X = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
LONG = tfig.SmoothGrad(tfig.IntegratedGradients(steps=2000), samples=8000)  # some ten seconds
Code = grpc.StatusCode


def table():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,), name="x"), L.Dense(8, activation="relu"), L.Dense(4)])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories of three models: one that explains, one that explains slowly, one that requires its options."""
    root = tmp_path_factory.mktemp("models")
    model = table()
    tfig.export(model, root / "table", {"explain": tfig.IntegratedGradients(steps=8)})
    tfig.export(model, root / "slow", {"explain": LONG}, warmup=False)
    strict = tf.Module()
    strict.w, one = tf.Variable(2.0), tf.constant([1.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "target")])
    def two(x, target):
        return {"y": x * strict.w + tf.cast(target, tf.float32)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, n) for n in ("x", "y", "z")],
    )
    def some(x, y, z=one):
        return {"sum": x + y + z}

    tf.saved_model.save(strict, str(root / "strict" / "1"), signatures={"serving_default": two, "some": some})
    return root


@contextlib.contextmanager
def serving(directory, **options):
    with serve(directory, port=0, **options) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        server.stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        server.models = model_service_pb2_grpc.ModelServiceStub(channel)
        server.health = health_pb2_grpc.HealthStub(channel)
        server.address = f"127.0.0.1:{server.port}"
        yield server


@pytest.fixture(scope="module")
def server(models):
    with serving({name: models / name for name in ("table", "slow", "strict")}) as running:
        yield running


def request(model="table", signature="", wanted=(), version=None, **inputs):
    made = predict_pb2.PredictRequest(output_filter=wanted)
    made.model_spec.name, made.model_spec.signature_name = model, signature
    if version is not None:
        made.model_spec.version.value = version
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(value if hasattr(value, "dtype") and not isinstance(value, np.ndarray) else
                                   tf.make_tensor_proto(value))  # fmt: skip
    return made


def corrupt():
    broken = tf.make_tensor_proto(X)
    broken.tensor_content = broken.tensor_content[:-3]
    return broken


def refused(call, message, timeout=20):
    with pytest.raises(grpc.RpcError) as error:
        call(message, timeout=timeout)
    return error.value.code(), error.value.details()


ONE, INT = np.ones(1, "float32"), np.ones(1, "int32")


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (request("nope", x=X), Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        (request(version=9, x=X), Code.NOT_FOUND, "Servable not found for request: Specific(table, 9)"),
        (request("", x=X), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (predict_pb2.PredictRequest(), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (request(signature="bogus", x=X), Code.FAILED_PRECONDITION, 'Serving signature key "bogus" not found.'),
        (
            request("strict", x=ONE),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 1!=2 len({x}) != len({target,x}). Sent extra: {}. "
            "Missing but required: {target}.",
        ),
        (
            request("strict", "some", x=ONE),
            Code.INVALID_ARGUMENT,
            "Signature input alias: y(feed name: some_y:0) not found in request and no default value provided. ",
        ),
        (
            request("strict", x=ONE, target=INT, bogus=ONE),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 3!=2 len({bogus,target,x}) != len({target,x}). "
            "Sent extra: {bogus}. Missing but required: {}.",
        ),
        (request(signature="explain_at", x=X, bogus=ONE), Code.INVALID_ARGUMENT, "Sent extra: {bogus}"),
        (
            request(x=X.astype("float64")),
            Code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided",
        ),
        (
            request(wanted=["nope"], x=X),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: nope ",
        ),
        (
            request(wanted=["output_0", "output_0"], x=X),
            Code.INVALID_ARGUMENT,
            "duplicate output tensor alias: output_0",
        ),
        (request(x=corrupt()), Code.INVALID_ARGUMENT, "tensor parsing error: x"),
        (
            request(x=X[:, :4]),
            Code.INVALID_ARGUMENT,
            "Shape of tensor x [3,4] is not compatible with expected shape [?,5].",
        ),
    ],
)
def test_the_status_table(server, asked, code, said):
    found, details = refused(server.stub.Predict, asked)
    assert (found is code and details.startswith(said)) or (said.startswith("Sent") and said in details)


def test_the_status_table_of_metadata_and_status(server):
    ask = get_model_metadata_pb2.GetModelMetadataRequest
    for fields, code, said in (
        ([], Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"),
        (["bogus"], Code.INVALID_ARGUMENT, "Metadata field bogus is not supported"),
    ):
        message = ask(metadata_field=fields)
        message.model_spec.name = "table"
        assert refused(server.stub.GetModelMetadata, message) == (code, said)
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "nope"
    said = "Could not find any versions of model nope"
    assert refused(server.models.GetModelStatus, message) == (Code.NOT_FOUND, said)


def test_answers_name_what_answered(server):
    answer = server.stub.Predict(request(signature="explain", x=X))
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("table", 1, "explain")
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "table"
    answer = server.stub.GetModelMetadata(message)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"serving_default", "explain", "explain_at"}
    assert set(signatures.signature_def["explain_at"].defaults) == {"target", "contrast", "baseline", "seed"}
    assert server.health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_optional_inputs_and_filters(server):
    answer = server.stub.Predict(request(signature="explain_at", wanted=["score"], x=X))
    assert set(answer.outputs) == {"score"}
    some = server.stub.Predict(request("strict", "some", x=ONE, y=ONE))
    np.testing.assert_array_equal(tf.make_ndarray(some.outputs["sum"]), [3.0])


def test_limits_answer_resource_exhausted(models):
    with serving(models / "slow", max_rows=4, max_requests=2, max_message_bytes=2000) as server:
        code, details = refused(server.stub.Predict, request("slow", x=np.zeros((5, 5), "float32")))
        assert code is Code.RESOURCE_EXHAUSTED and "at most 4" in details
        huge = request("slow", signature="explain", x=np.zeros((3, 5), "float32"), note=np.zeros(1000, "float32"))
        code, details = refused(server.stub.Predict, huge)
        assert code is Code.RESOURCE_EXHAUSTED and "larger than max" in details
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: refused(server.stub.Predict, request("slow", "explain", x=X), 2), range(8)))
        assert {code for code, _ in found} == {Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
        assert all("Threadpool Exhausted" in text for code, text in found if code is Code.RESOURCE_EXHAUSTED)


def test_the_deadline_stops_the_work(server):
    begin = time.monotonic()
    code, _ = refused(server.stub.Predict, request("slow", "explain", x=X), timeout=1)
    assert code is Code.DEADLINE_EXCEEDED and time.monotonic() - begin < 5
    held = server._models["slow"]._loaded[1]
    with held._free:
        assert held._free.wait_for(lambda: held._using == 0, timeout=5)


def test_large_answers(tmp_path):
    wide = keras.Sequential([keras.Input((512, 512, 1), name="x"), L.GlobalAveragePooling2D(), L.Dense(2)])
    tfig.export(wide, tmp_path / "wide", {"explain": "gradient"}, warmup=False)
    with serve(tmp_path / "wide", port=0) as server, Client(f"127.0.0.1:{server.port}", "wide", rows=64) as client:
        for rows, megabytes in ((5, 5), (50, 50)):
            e = client.explain(np.zeros((rows, 512, 512, 1), "float32"))
            assert e.attributions.nbytes >= megabytes * 2**20
            np.testing.assert_allclose(e.attributions, e.attributions[:1, :1, :1].repeat(rows, 0) + 0 * e.attributions)
    with serve(tmp_path / "wide", port=0, max_message_bytes=2 * 2**20) as server:
        with Client(f"127.0.0.1:{server.port}", "wide") as client, pytest.raises(ServingError) as error:
            client.explain(np.zeros((5, 512, 512, 1), "float32"))
        assert error.value.code is Code.RESOURCE_EXHAUSTED and "rows=" in str(error.value)


def test_garbage_on_the_port(server):
    rng = np.random.default_rng(0)
    for size in (1, 100, 10_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(rng.bytes(size))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert server.stub.Predict(request(x=X), timeout=10).outputs


DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool", "float16", "complex64"]
REFUSALS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED}


def random_tensor(rng):
    if rng.random() < 0.1:
        return tf.make_tensor_proto(np.array([[b"words"] * 5], object), tf.string)
    if rng.random() < 0.3:
        return tf.make_tensor_proto(X)
    shape = rng.integers(0, 7, rng.integers(0, 4)).tolist()
    if rng.random() < 0.5:
        shape = [int(rng.integers(1, 4)), 5]
    made = tf.make_tensor_proto(rng.normal(size=shape).astype(rng.choice(DTYPES)))
    if rng.random() < 0.2:
        made.tensor_shape.dim.add(size=int(rng.choice([-1, 0, 3, 2**40])))
    if rng.random() < 0.1:
        made.dtype = int(rng.integers(0, 130))
    if rng.random() < 0.1:
        made.tensor_content = made.tensor_content[: rng.integers(0, 9)]
    if rng.random() < 0.05:
        made.tensor_shape.unknown_rank = True
    return made


def test_two_thousand_random_requests(server):
    rng = np.random.default_rng(0)
    channel = grpc.insecure_channel(server.address)
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # it logs each message that does not parse
    answered = truncated = 0
    for _ in range(2000):
        message = request(
            str(rng.choice(["table", "table", "table", "nope", ""])),
            str(rng.choice(["", "explain", "explain_at", "explain_at", "bogus"])),
            [str(name) for name in rng.choice(["score", "output_0", "nope"], rng.integers(0, 3))],
            None if rng.random() < 0.8 else int(rng.integers(-1, 3)),
        )
        odd = 0 if rng.random() < 0.3 else rng.integers(0, 5)
        for name in rng.choice(["x", "x", "target", "contrast", "seed", "baseline", "y"], odd):
            message.inputs[str(name)].CopyFrom(random_tensor(rng))
        if rng.random() < 0.7:
            message.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
        sent, parses = message.SerializeToString(), True
        if rng.random() < 0.2:
            sent = sent[: rng.integers(0, len(sent) + 1)]
            try:
                predict_pb2.PredictRequest.FromString(sent)
            except DecodeError:
                parses, truncated = False, truncated + 1
        try:
            raw(sent, timeout=20)
            answered += 1
        except grpc.RpcError as error:
            # What does not parse at all gRPC itself answers.
            assert error.code() in REFUSALS if parses else error.code() is Code.INTERNAL, error
    logging.getLogger("grpc").setLevel(logging.NOTSET)
    assert answered > 100 and truncated > 50
    assert server.stub.Predict(request(x=X)).outputs
    channel.close()


def test_versions_come_and_go_under_load(models, tmp_path, caplog):
    shutil.copytree(models / "table", tmp_path / "table")
    caplog.set_level(logging.INFO, "tfig.serving")
    failures, answers, over = [], [], threading.Event()

    def ask(stub):
        while not over.is_set():
            try:
                answers.append(stub.Predict(request(signature="explain", x=X), timeout=20).model_spec.version.value)
            except grpc.RpcError as error:
                failures.append(error)

    with serving(tmp_path / "table", poll=0.1) as server:
        askers = [threading.Thread(target=ask, args=(server.stub,)) for _ in range(4)]
        for asker in askers:
            asker.start()

        def wait_for(said):
            end = time.monotonic() + 30
            while not any(said in record.getMessage() for record in caplog.records):
                assert time.monotonic() < end, f"never said: {said}"
                time.sleep(0.05)

        time.sleep(0.3)
        tfig.export(table(), tmp_path / "table", {"explain": tfig.IntegratedGradients(steps=8)})
        wait_for("version 1 is unloaded")
        (tmp_path / "table" / "3").mkdir()
        (tmp_path / "table" / "3" / "saved_model.pb").write_bytes(b"not a model")
        wait_for("version 3 was not loaded")
        shutil.rmtree(tmp_path / "table" / "3")
        time.sleep(0.3)
        states = {one.version: one for one in Client(server.address, "table").status()}
        over.set()
        for asker in askers:
            asker.join()
    assert not failures and set(answers) == {1, 2} and answers[-1] == 2
    assert states[2].state == "AVAILABLE" and states[1].state == "END"
    assert states[3].state == "END" and "no SavedModel that loads" in states[3].error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"host": "0.0.0.0"}, "plaintext"),
        ({"certificate": "a.pem"}, "certificate= and key= together"),
        ({"client_ca": "a.pem"}, "needs both"),
        ({"max_rows": 0}, "max_rows is 0"),
        ({"port": 99999}, "port is 99999"),
        ({"port": "8500"}, "port is '8500'"),
    ],
)
def test_servers_that_cannot_be(models, arguments, said):
    with pytest.raises(ValueError, match=said):
        serve(models / "table", **{"port": 0, **arguments})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"address": "localhost"}, "pass host:port"),
        ({"address": "http://localhost:8500"}, "pass host:port"),
        ({"key": "a.pem"}, "certificate= and key= together"),
        ({"ca": "a.pem", "credentials": grpc.local_channel_credentials()}, "pass one of them"),
        ({"timeout": None}, "timeout is None"),
        ({"model": None}, "model is None"),
        ({"version": "1"}, "version is '1'"),
        ({"rows": 0}, "rows is 0"),
    ],
)
def test_clients_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        Client(**{"address": "localhost:8500", "model": "m", **arguments})


def test_directories_that_cannot_be_served(models, tmp_path):
    for folder, said in ((tmp_path / "none", "no such directory"), (tmp_path, "no folder named by a number")):
        with pytest.raises(ValueError, match=said):
            serve(folder, port=0)
    with pytest.raises(ValueError, match="pass the folder around it"):
        serve(models / "table" / "1", port=0)
    with pytest.raises(ValueError, match="empty mapping"):
        serve({}, port=0)
    with serve(models / "table", port=0) as server, pytest.raises(OSError, match="port is taken"):
        serve(models / "table", port=server.port)


def pem(folder, authority):
    """Files of an authority, a server and a client."""
    made = {"ca": folder / "ca.pem", "certificate": folder / "server.pem", "key": folder / "server.key"}
    authority.cert_pem.write_to_path(made["ca"])
    server, client = authority.issue_cert("localhost"), authority.issue_cert("client@localhost")
    for one, name in ((server, "server"), (client, "client")):
        one.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        one.private_key_pem.write_to_path(folder / f"{name}.key")
    return made


def test_tls_and_mutual_tls(models, tmp_path):
    made = pem(tmp_path, trustme.CA())
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    files = {"certificate": made["certificate"], "key": made["key"]}
    own = {"certificate": tmp_path / "client.pem", "key": tmp_path / "client.key"}
    with serve(models / "table", port=0, **files) as server:
        address = f"localhost:{server.port}"
        with Client(address, "table", ca=made["ca"]) as client:
            assert client.explain(X).attributions.shape == X.shape
        for trusted in ({}, {"ca": tmp_path / "stranger.pem"}):
            begin = time.monotonic()
            patient = Client(address, "table", timeout=20.0 if trusted else 1.0, **trusted)
            with patient as client, pytest.raises(ServingError) as error:
                client.explain(X)
            assert error.value.code is Code.UNAVAILABLE and time.monotonic() - begin < 15
            assert ("certificates do not fit" in str(error.value)) == bool(trusted)
    with serve(models / "table", port=0, client_ca=made["ca"], **files) as server:
        address = f"localhost:{server.port}"
        with Client(address, "table", ca=made["ca"], **own) as client:
            assert client.predict(X).shape == (3, 4)
        with Client(address, "table", ca=made["ca"], timeout=2.0) as client, pytest.raises(ServingError) as error:
            client.predict(X)
        assert error.value.code is Code.UNAVAILABLE


def process(directory, port):
    code = "import sys, tfig_command; sys.exit(tfig_command.main())"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(directory), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert "serving" in running.stdout.readline()
    return running


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_killed_in_the_middle_of_a_request_and_back(models):
    port = free_port()
    running = process(models / "slow", port)
    client = Client(f"127.0.0.1:{port}", "slow", retries=0)
    assert client.predict(X).shape == (3, 4)
    threading.Timer(1.0, running.kill).start()
    with pytest.raises(ServingError) as error:
        client.explain(X)
    assert error.value.code is Code.UNAVAILABLE and "check that the server runs" in str(error.value)
    running.wait()
    patient = Client(f"127.0.0.1:{port}", "slow")
    begin = time.monotonic()
    later = threading.Timer(4.0, lambda: None)
    later.start()
    asked = concurrent.futures.ThreadPoolExecutor(1).submit(patient.predict, X)  # while the server is away
    later.join()
    back = concurrent.futures.ThreadPoolExecutor(1).submit(process, models / "slow", port)
    assert asked.result().shape == (3, 4) and time.monotonic() - begin > 4
    running = back.result()
    assert client.predict(X).shape == (3, 4)
    running.terminate()
    assert running.wait(20) == 0


def test_sigterm_answers_what_is_in_flight(models, tmp_path):
    long = tfig.SmoothGrad(tfig.IntegratedGradients(steps=1000), samples=800)
    tfig.export(table(), tmp_path / "long", {"explain": long}, warmup=False)
    port = free_port()
    running = process(tmp_path / "long", port)
    client = Client(f"127.0.0.1:{port}", "long", retries=0)
    client.predict(X)
    begin = time.monotonic()
    client.explain(X)
    alone = time.monotonic() - begin
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.explain, X)
        time.sleep(alone / 4)
        running.send_signal(signal.SIGTERM)
        assert np.isfinite(answer.result().attributions).all()
    assert running.wait(20) == 0


def test_the_client_splits_and_retries(server):
    many = np.random.default_rng(1).normal(size=(70, 5)).astype("float32")
    whole = tfig.explain(table(), many, tfig.IntegratedGradients(steps=8), seed=np.arange(70))
    with Client(server.address, "table", rows=16) as client:
        e = client.explain(many, seed=np.arange(70), target=whole.target)
    np.testing.assert_allclose(e.attributions, whole.attributions, rtol=1e-4, atol=1e-6)
    assert len(e) == 70
    with Client(server.address, "table", request_bytes=100) as client:
        np.testing.assert_allclose(client.explain(many).attributions, e.attributions, rtol=1e-4, atol=1e-6)


def test_more_clients_than_threads_lose_nothing(models):
    expected = tfig.explain(table(), X, tfig.IntegratedGradients(steps=8)).attributions
    with serving(models / "table", max_requests=2) as server:

        def ask(_):
            with Client(server.address, "table", timeout=120) as client:
                return [client.explain(X).attributions for _ in range(5)]

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            for found in pool.map(ask, range(24)):
                for one in found:
                    np.testing.assert_array_equal(one, expected)


def test_the_client_asks_for_no_set_of_outputs_that_is_not_warm(tmp_path):
    """A server keeps a copy of the graph for each."""
    model, x = zoo.build("sequential"), zoo.images(2)
    folder = tfig.export(model, tmp_path / "m", {"explain": tfig.IntegratedGradients(4)}, warmup=False)
    with Servable(folder) as servable:
        warm = protocol.asked(servable.signatures)
    with serving(tmp_path / "m") as server, Client(server.address, "m") as client:
        held = server._models["m"]._loaded[1]
        asked, plain = [], held.predict

        def noted(signature, inputs, wanted=(), seconds=None):
            asked.append((signature, list(wanted)))
            return plain(signature, inputs, wanted, seconds)

        held.predict = noted
        whole = client.explain(x)
        alone = [client.explain(x, outputs=one) for one in ("heatmap", "overlay_bytes", "score", "attributions")]
        both = client.explain(x, outputs=["heatmap", "attributions"], target=1)
    assert [signature for signature, _ in asked] == [
        "explain", "explain_heatmap", "explain_overlay", "explain", "explain", "explain_at"
    ]  # fmt: skip
    assert all(wanted in warm[signature] for signature, wanted in asked)
    np.testing.assert_allclose(alone[0].heatmap(), whole.heatmap(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(alone[0].target, whole.target)
    assert alone[1].trace["overlay_bytes"][0].startswith(b"\x89PNG") and set(alone[1].trace) == {"overlay_bytes"}
    assert alone[2].attributions is None and set(both.trace) == {"heatmap"}
    np.testing.assert_array_equal(alone[3].attributions, whole.attributions)


def _behind(models):
    """The version's state that a guard shows while the server behind it is there, away, and back."""
    port = free_port()
    server = serve(models / "table", port=port)
    with guard(f"127.0.0.1:{port}", ["table"], 0) as front, Client(f"127.0.0.1:{front.port}", "table") as client:
        yield client.status()[0]
        server.stop(0)
        end = time.monotonic() + 30
        while client.status()[0].state != "END" and time.monotonic() < end:
            time.sleep(0.1)
        yield client.status()[0]
        with pytest.raises(ServingError, match="behind this one is away") as error:
            Client(f"127.0.0.1:{front.port}", "table", retries=0).predict(X)
        assert str(port) not in str(error.value)
        with serve(models / "table", port=port):
            while client.status()[0].state != "AVAILABLE" and time.monotonic() < end + 30:
                time.sleep(0.1)
            yield client.status()[0]
            assert client.predict(X).shape == (3, 4)


def test_a_guard_passes_what_fits_and_nothing_else(models):
    resource = tf.make_tensor_proto(np.zeros(1, "float32"))
    resource.dtype = tf.resource.as_datatype_enum  # 56 bytes of this end a TensorFlow Serving
    with serving({"table": models / "table", "strict": models / "strict"}) as behind:
        with (
            guard(behind.address, ["table"], 0, signatures=["explain", "explain_at"], max_rows=8) as front,
            Client(f"127.0.0.1:{front.port}", "table") as client,
            grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel,
        ):
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            expected = tfig.explain(table(), X, tfig.IntegratedGradients(steps=8), target=2)
            np.testing.assert_array_equal(client.explain(X, target=2).attributions, expected.attributions)
            assert [one.version for one in client.status()] == [1] and list(client.explanations()) == ["explain"]
            for asked, code, said in (
                (request(signature="explain", x=resource), Code.INVALID_ARGUMENT, "tensor parsing error: x"),
                (request(signature="explain", x=X[:, :4]), Code.INVALID_ARGUMENT, "not compatible"),
                (request(signature="explain", x=X, y=X), Code.INVALID_ARGUMENT, "Sent extra: {y}"),
                (request(signature="explain", x=np.zeros((9, 5), "float32")), Code.RESOURCE_EXHAUSTED, "at most 8"),
                (request(signature="explain", wanted=["score"], x=X), Code.INVALID_ARGUMENT, "no set that is served"),
                (request(signature="serving_default", x=X), Code.FAILED_PRECONDITION, "not found"),
                (request("strict", x=ONE), Code.NOT_FOUND, "Servable not found"),
                (request(signature="explain", version=7, x=X), Code.NOT_FOUND, "leave it out"),
            ):
                found, details = refused(stub.Predict, asked)
                assert found is code and said in details
        # A server that goes away is said to, and one that comes back is found again.
        assert [one.state for one in _behind(models)] == ["AVAILABLE", "END", "AVAILABLE"]
        begin = time.monotonic()
        with (
            serving(models / "slow") as slow,
            guard(slow.address, ["slow"], 0, seconds=1.0) as front,
            Client(f"127.0.0.1:{front.port}", "slow", timeout=60) as client,
            pytest.raises(ServingError) as error,
        ):
            client.explain(X)
        assert error.value.code is Code.DEADLINE_EXCEEDED and time.monotonic() - begin < 20


def test_counters_in_the_names_of_tensorflow_serving(models):
    with serving(models / "table", metrics_port=0) as server:
        for _ in range(3):
            server.stub.Predict(request(signature="explain", x=X))
        refused(server.stub.Predict, request(signature="bogus", x=X))
        refused(server.stub.Predict, request("nope", x=X))
        at = f"http://127.0.0.1:{server.metrics_port}"
        with urllib.request.urlopen(f"{at}/monitoring/prometheus/metrics") as answer:
            lines = answer.read().decode().splitlines()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(at)
    count, latency = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
    for line in (
        f'{count}{{model_name="table",status="OK"}} 3',
        f'{count}{{model_name="table",status="FAILED_PRECONDITION"}} 1',
        f'{count}{{model_name="",status="NOT_FOUND"}} 1',  # names that callers make up are not kept
        f'{latency}_count{{model_name="table",API="Predict",entrypoint="GRPC"}} 4',
        f'{latency}_bucket{{model_name="table",API="Predict",entrypoint="GRPC",le="+Inf"}} 4',
    ):
        assert line in lines
    # The format's own rule: buckets never fall.
    held = [int(line.split()[-1]) for line in lines if line.startswith(latency + "_bucket") and '"table"' in line]
    assert held == sorted(held) and len(held) == 34


def test_a_socket_of_this_machine(models, tmp_path):
    with serve(models / "table", host=f"unix:{tmp_path}/s", port=0), Client(f"unix:{tmp_path}/s", "table") as client:
        assert client.predict(X).shape == (3, 4)


@pytest.mark.parametrize(
    ("code", "details", "advice"),
    [
        (Code.INVALID_ARGUMENT, "Task size 48 is larger than maximum input batch size 32", "pass rows="),
        (Code.INVALID_ARGUMENT, "Batching session Run() input tensors must have equal 0th-dimension size", "each row"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", "max_message_bytes"),
        (Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full", "queue is full"),
        (Code.UNAVAILABLE, "Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", "certificates"),
    ],
)
def test_what_a_server_says_gets_its_advice(code, details, advice):
    class Refused(grpc.RpcError):
        def code(self):
            return code

        def details(self):
            return details

    assert advice in str(answers.failed(Refused(), "host:1"))


def test_the_clients_words(server):
    model = table()
    with Client(server.address, "table") as client:
        offered = client.explanations()["explain"]
        assert offered.inputs == {"x": ([None, 5], "float32")} and offered.options["target"] == ([None], "int32")
        assert [one.state for one in client.status()] == ["AVAILABLE"]
        e = client.explain(X.astype("float64"), target=tfig.Contrast(1, 2), baseline=0.5)
        local = tfig.explain(model, X, tfig.IntegratedGradients(steps=8), target=tfig.Contrast(1, 2), baseline=0.5)
        np.testing.assert_array_equal(e.attributions, local.attributions)
        np.testing.assert_array_equal(e.trace["against"], [2, 2, 2])
        deletion = tfig.metrics.deletion(e, model=model, steps=5).scores
        np.testing.assert_array_equal(deletion, tfig.metrics.deletion(local, steps=5).scores)
        e = client.explain(X, contrast="runner_up", outputs=["attributions"])
        assert e.baseline_score is None and len(e) == 3
        x = X.copy()
        x[1] = np.nan
        with pytest.raises(ServingError) as error:
            client.explain(x)
        assert error.value.rows == [1] and "NaN" in str(error.value)
        e = client.explain(x, return_bad_rows=True)
        np.testing.assert_array_equal(e.trace["status"], [0, 2, 0])
        assert np.isnan(e.attributions[1]).all() and np.isfinite(e.attributions[[0, 2]]).all()
        for arguments, said in (
            ({"x": X[0]}, "needs a batch axis"),
            ({"x": X[:, :2]}, "the model takes"),
            ({"x": X[:0]}, "zero rows"),
            ({"x": {"y": X}}, "the model takes"),
            ({"target": "last"}, "'predicted'"),
            ({"target": [1, 2]}, "x has 3 rows"),
            ({"baseline": "blur"}, "computed at export"),
            ({"baseline": np.zeros(4)}, "baseline of 'baseline' has shape"),
            ({"target": tfig.Contrast(1, 2), "contrast": 3}, "pass one of them"),
            ({"outputs": ["picture"]}, "no outputs"),
        ):
            with pytest.raises(ValueError, match=said):
                client.explain(**{"x": X, **arguments})
        with pytest.raises(ServingError, match="it has \\['explain'\\]"):
            client.explain(X, "igos")
    with Client("127.0.0.1:1", "table", timeout=0.5) as away, pytest.raises(ServingError) as error:
        away.predict(X)
    assert error.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)


def test_the_async_client(server):
    async def ask():
        async with tfig.serving.AsyncClient(server.address, "table") as client:
            several = await asyncio.gather(*(client.explain(X, target=2) for _ in range(5)))
            with pytest.raises(ServingError) as error:
                await client.explain(X, target=9)
            return several, await client.predict(X), await client.explanations(), await client.status(), error.value

    several, predicted, offered, status, error = asyncio.run(ask())
    with Client(server.address, "table") as client:
        expected = client.explain(X, target=2)
        for e in several:
            np.testing.assert_array_equal(e.attributions, expected.attributions)
        np.testing.assert_array_equal(predicted, client.predict(X))
        assert offered == client.explanations() and status == client.status()
    assert error.rows == [0, 1, 2] and error.code is Code.INVALID_ARGUMENT


def test_the_client_follows_a_new_version_and_the_exported_question(tmp_path):
    model = table()
    question = {"noise": 0.3, "samples": 4}
    why = tfig.Explainer(model, tfig.SmoothGrad(**question), target=tfig.Contrast(3, 1), seed=9)
    tfig.export(model, tmp_path / "m", {"why": why}, warmup=False)
    with serve(tmp_path / "m", port=0, poll=0.05) as server:
        client, patient = (Client(f"127.0.0.1:{server.port}", "m") for _ in range(2))
        np.testing.assert_array_equal(client.explain(X, "why").attributions, why(X).attributions)
        found = client.explain(X, "why", target=2, seed=0)  # a new target is asked for itself
        local = tfig.explain(model, X, tfig.SmoothGrad(**question), target=2)
        np.testing.assert_array_equal(found.attributions, local.attributions)
        assert "against" not in found.trace
        alone = client.explain(X, "why", outputs="score")
        assert alone.attributions is None and "left out" in repr(alone) and len(alone[0]) == 1
        with pytest.raises(ValueError, match="left out"):
            alone.heatmap()
        patient.explanations()
        tfig.export(model, tmp_path / "m", {"how": "gradient"}, warmup=False)
        end = time.monotonic() + 20
        while client.status()[0].version != 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert patient.explain(X, "how").attributions.shape == X.shape  # names read anew
        shutil.rmtree(tmp_path / "m" / "2")
        while client.status()[0].state != "END" and time.monotonic() < end:
            time.sleep(0.05)
        assert [(one.version, one.state) for one in client.status()] == [(2, "END"), (1, "AVAILABLE")]


def test_several_inputs_by_name(tmp_path):
    case, model = zoo.ZOO["two_inputs"], zoo.build("two_inputs")
    tfig.export(model, tmp_path / "two", {"explain": tfig.IntegratedGradients(4)}, warmup=False)
    with serve(tmp_path / "two", port=0) as server, Client(f"127.0.0.1:{server.port}", "two") as client:
        e = client.explain(case.x, baseline={"image": 0.5})
        local = tfig.explain(model, case.x, tfig.IntegratedGradients(4), baseline={"image": 0.5})
        for name, expected in local.attributions.items():
            np.testing.assert_array_equal(e.attributions[name], expected)
        np.testing.assert_array_equal(e.overlay(), local.overlay())
        pictures = client.explain(case.x, outputs=["overlay_image_bytes"]).trace["overlay_image_bytes"]
        assert all(png.startswith(b"\x89PNG") for png in pictures)
        with pytest.raises(ValueError, match="dict that names them"):
            client.explain([case.x["image"], case.x["table"]])
        with pytest.raises(ValueError, match="baseline names"):
            client.explain(case.x, baseline={"picture": 0})


def test_nothing_of_grpc_is_needed_to_explain():
    code = (
        "import sys, tfig; assert not [m for m in sys.modules if m.startswith(('tensorflow_serving', 'grpc_health'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(tfig.__file__).parents[1])
