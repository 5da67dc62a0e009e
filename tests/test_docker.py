"""What docker/ says, as far as a machine without a Docker daemon can tell."""

import json
import re

import pytest
import yaml
from conftest import ROOT

DOCKER = ROOT / "docker"
IMAGES = ("train.Dockerfile", "serve.Dockerfile")
PINNED = re.compile(r"\S+:(v?\d+\.\d+\.\d+)(-\S+)?|\S+@sha256:[0-9a-f]{64}")


def steps(name):
    """Return the instructions of a Dockerfile, their lines joined, as pairs of word and rest."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / name).read_text()))
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_pinned_not_root_and_copies_what_is_there(name):
    words = steps(name)
    for word, rest in words:
        if word == "FROM":
            assert PINNED.fullmatch(rest.split()[0]), rest
        if word == "COPY" and "--from" not in rest and "$" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
    assert [rest for word, rest in words if word == "USER"][-1].split(":")[0] not in ("0", "root")
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", "data/*", "!data/exports"} <= set(ignored)


def test_the_final_layer_of_the_service_builds_nothing_and_is_asked_for_its_health():
    words = steps("serve.Dockerfile")
    last = max(number for number, (word, _) in enumerate(words) if word == "FROM")
    assert {word for word, _ in words[last:]}.isdisjoint({"RUN", "ADD"})
    (health,) = (rest for word, rest in words if word == "HEALTHCHECK")
    assert "/ready" in json.loads(health[health.index("[") :])[-1]
    packages = (DOCKER / "serve.txt").read_text()
    assert not re.search(r"^(torch|transformers|onnx)\b", packages, flags=re.M)


def test_the_services_together():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert set(services) == {"service", "qdrant", "azurite"}
    for name in ("qdrant", "azurite"):
        assert PINNED.fullmatch(services[name]["image"])
    build = services["service"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).exists()
    assert services["service"]["environment"]["BLACKSWAN_API_KEY"] is None
    for port in (port for one in services.values() for port in one.get("ports", [])):
        assert port.startswith("127.0.0.1:")


def test_the_clouds_refer_to_secrets_and_hold_none():
    service = yaml.safe_load((DOCKER / "cloudrun.yaml").read_text())
    (container,) = service["spec"]["template"]["spec"]["containers"]
    (key,) = container["env"]
    assert key["valueFrom"]["secretKeyRef"]["name"] == "blackswan-api-key"
    assert container["startupProbe"]["httpGet"]["path"] == "/ready"
    bicep = (DOCKER / "azure.bicep").read_text()
    code = re.sub(r"(?m)^\s*//.*$", "", bicep)
    for opening, closing in ("{}", "[]", "()"):
        assert code.count(opening) == code.count(closing)
    assert "keyVaultUrl:" in code
    assert "secretRef: 'api-key'" in code  # pragma: allowlist secret
    assert not re.search(r"\bvalue: '", code)
    declared = set(re.findall(r"^(?:param|resource) (\w+)", code, flags=re.M))
    used = {name for name in declared if len(re.findall(rf"\b{name}\b", code)) > 1}
    assert declared - used == {"app"} - used
