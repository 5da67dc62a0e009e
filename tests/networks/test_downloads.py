import hashlib

import pytest
from servers import serving, write_certificate

from blackswan.errors import InputError
from blackswan.networks.downloads import download

BODY = bytes(range(256)) * 5000


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    path = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return path


def redirect(address):
    return 302, {"Location": address}, b""


def test_a_file_arrives_through_a_redirect_with_its_sha256(tmp_path, certificate):
    answers = {"/old": redirect("/new"), "/new": (200, {}, BODY)}
    with serving(answers.get, certificate) as url:
        found = download(f"{url}/old", tmp_path / "file", "the file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert found == hashlib.sha256(BODY).hexdigest()


def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(tmp_path, certificate, monkeypatch):
    with serving(lambda _: (200, {}, BODY)) as plain:
        answers = {
            "/plain": redirect(f"{plain}/file?token=1234567890abcdef"),
            "/ring": redirect("/ring"),
            "/absent": (404, {}, b"no"),
            "/half": (200, {"Content-Length": str(2 * len(BODY))}, BODY),
        }
        said = {
            "/plain": "^the file leads to an address of http, .* stays on https$",
            "/ring": "^the file cannot be downloaded .*redirects.* source: folder$",
            "/absent": "^the file is not to be had: the server answers 404 Not Found; correct",
            "/half": "^the file cannot be downloaded .*source: folder$",
        }
        with serving(answers.get, certificate) as url:
            for path, sentence in said.items():
                with pytest.raises(InputError, match=sentence) as failure:
                    download(url + path, tmp_path / "file", "the file")
                assert "token" not in str(failure.value)
            monkeypatch.delenv("SSL_CERT_FILE")
            with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED|certificate"):
                download(f"{url}/old", tmp_path / "file", "the file")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    with pytest.raises(InputError, match="the file cannot be downloaded"):
        download("https://127.0.0.1:1/file", tmp_path / "file", "the file")
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.pem"]
