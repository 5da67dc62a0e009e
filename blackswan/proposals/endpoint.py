"""The endpoint that is asked: OpenAI, Azure OpenAI, or whatever speaks their chat completions.

Keys come from the environment alone. What an endpoint says of an error is left out, for it may
quote the key; its code is shown.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import openai
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import DefaultAzureCredential, get_bearer_token_provider
from pydantic import BaseModel, Field, ValidationError

from blackswan.errors import InputError
from blackswan.proposals.questions import Reply
from blackswan.tracking.client import LOOPBACK

OPENAI = "https://api.openai.com/v1"
KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
AZURE, AZURE_KEY, AZURE_VERSION = (
    "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION",
)  # fmt: skip
SCOPE = "https://cognitiveservices.azure.com/.default"
# Of status 400: it is the images that are refused, and the next ones need not be.
OF_CONTENT = {"content_filter", "content_policy_violation", "invalid_image", "image_parse_error"}
REMEDIES = {
    400: "it must take images and response_format json_schema; name another with --model",
    401: f"set {KEY}, or {AZURE_KEY}, to a key of it",
    403: "the key may not use this model; ask for access, or name another with --model",
    404: "check --base-url, which ends with /v1 at most servers, and --model",
    413: "it takes no requests of this size; name another with --base-url",
    429: "its limit is reached, or the account has no credit; later the same command goes on",
}
LATER = "later the same command goes on"


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True)
class Address:
    """Where images go."""

    url: str
    is_azure: bool = False

    @property
    def host(self) -> str:
        """The name of the machine."""
        return str(urlsplit(self.url).hostname)

    @property
    def is_here(self) -> bool:
        """Whether it is this machine, which images do not leave then."""
        return self.host in LOOPBACK


def address(base_url: str | None) -> Address:
    """Return the address that an option or the environment names, by default that of OpenAI.

    Raises InputError where it is no URL, or the key would be sent in the clear.
    """
    named = {name: os.environ[name] for name in (URL, AZURE) if os.environ.get(name)}
    if base_url:
        found, name = Address(base_url), "--base-url"
    elif len(named) > 1:
        raise InputError(f"{URL} and {AZURE} name two endpoints; unset one, or give --base-url")
    elif AZURE in named:
        found, name = Address(named[AZURE], is_azure=True), AZURE
    else:
        found, name = Address(named.get(URL, OPENAI)), URL
    try:
        parts = urlsplit(found.url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not parts.username
        _ = parts.port
    except ValueError:
        valid = False
    if not valid or parts.query:
        raise InputError(
            f"{name} must be http://... or https://..., without a user or a key in it; such as "
            f"{OPENAI}"
        )
    if parts.scheme == "http" and not found.is_here:
        raise InputError(f"{name} is http, which sends images in the clear; write https://")
    return found


class Endpoint:
    """Asks one model, one request at a time."""

    def __init__(self, where: Address, model: str, retries: int, seconds: float) -> None:
        """Raise InputError where there is no key."""
        self.where = where
        # What is asked goes nowhere else: no redirects, and no proxy to this very machine.
        http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=not where.is_here)
        shared: dict[str, Any] = {
            "max_retries": retries, "timeout": seconds, "http_client": http,
        }  # fmt: skip
        self._client: openai.OpenAI
        if where.is_azure:
            self._client = openai.AzureOpenAI(
                azure_endpoint=where.url,
                azure_deployment=model,
                api_version=_version(),
                **_azure_login(),
                **shared,
            )
        else:
            key = _key(KEY) or ("none" if where.is_here else "")
            if not key:
                raise InputError(f"{KEY} is not set; export it, with a key of {where.host}")
            self._client = openai.OpenAI(api_key=key, base_url=where.url, **shared)

    def __call__(self, request: Mapping[str, Any]) -> Reply:
        """Send a request; raises InputError where no answer comes, or none of the protocol."""
        try:
            raw = self._client.chat.completions.with_raw_response.create(**request)
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APITimeoutError:
            raise InputError(f"{self.where.host} did not answer in time; {LATER}") from None
        except openai.OpenAIError:
            raise InputError(
                f"{self.where.host} cannot be reached, or hangs up; check --base-url, and {LATER}"
            ) from None
        except ClientAuthenticationError:
            raise InputError(
                f"there is no login for {self.where.host}; `az login`, or set {AZURE_KEY}"
            ) from None
        try:
            completion = _Completion.model_validate_json(raw.content)
        except ValidationError:
            raise InputError(
                f"{self.where.host} answers with no chat completion; check --base-url, which ends "
                "with /v1 at most servers"
            ) from None
        if not completion.choices:
            raise InputError(f"{self.where.host} answers without a choice; {LATER}")
        choice, usage = completion.choices[0], completion.usage
        return Reply(
            choice.message.content or "",
            _abstention(choice),
            usage.prompt_tokens if usage else None,
            usage.completion_tokens if usage else None,
        )

    def _refused(self, error: openai.APIStatusError) -> Reply:
        status, code = error.status_code, _code(error)
        if status == 400 and code in OF_CONTENT:
            return Reply("", f"the endpoint refused the images ({code})", 0, 0)
        said = f"{self.where.host} answers with status {status}" + (f" ({code})" if code else "")
        raise InputError(f"{said}; {REMEDIES.get(status, LATER)}") from None


def _abstention(choice: _Choice) -> str:
    """Return why an answer does not count; "" where it may."""
    if choice.message.refusal:
        return "the model refused"
    if choice.finish_reason == "length":
        return "the answer was cut at --max-tokens"
    if choice.finish_reason == "content_filter":
        return "the answer was filtered"
    return "" if choice.message.content else "the answer was empty"


def _code(error: openai.APIStatusError) -> str:
    """Return the code of an error, a word, and the parameter that is at fault; else ""."""
    words = [getattr(error, name, None) for name in ("code", "param")]
    return " ".join(
        word
        for word in words
        if isinstance(word, str) and re.fullmatch(r"[a-z][a-z_.]{1,39}", word)
    )


def _key(name: str) -> str:
    """Return a key of the environment, "" for none; raises InputError where no header can be it."""
    key = os.environ.get(name, "")
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"{name} holds a space, a line break or a letter; export the key alone")
    return key


def _version() -> str:
    version = os.environ.get(AZURE_VERSION)
    if not version:
        raise InputError(f"{AZURE_VERSION} is not set; export it, such as 2024-10-21")
    return version


def _azure_login() -> dict[str, str | Callable[[], str]]:
    if key := _key(AZURE_KEY):
        return {"api_key": key}
    provider = get_bearer_token_provider(DefaultAzureCredential(), SCOPE)
    return {"azure_ad_token_provider": provider}
