"""Any endpoint that speaks OpenAI's chat completions, by URL and key from the environment.

The key is read when a request is made, sent in one header, and never part of a message or a file.
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

URL_VARIABLE, KEY_VARIABLE = "BASIS_ZOO_JUDGE_URL", "BASIS_ZOO_JUDGE_KEY"
AGAIN = (408, 409, 429, 500, 502, 503, 504)
"""Answers after which a request is repeated."""


class EndpointError(Exception):
    """The endpoint cannot be used; the message names the place and reason, never the key."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and which model."""

    model: str
    timeout: float = 120.0
    attempts: int = 5
    pause: float = 2.0
    """Seconds before the second attempt; doubled before each further one."""

    def check(self) -> str:
        """The URL, without credentials; refuses an environment that lacks what is needed.

        Raises:
            EndpointError: a variable is not set, or the URL is none.
        """
        url = os.environ.get(URL_VARIABLE, "")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise EndpointError(
                f"set {URL_VARIABLE} to the endpoint's base URL, e.g. https://host/v1 "
                f"(without user and password in it)"
            )
        if not os.environ.get(KEY_VARIABLE):
            raise EndpointError(f"set {KEY_VARIABLE} to the endpoint's key")
        return url.rstrip("/")

    def ask(self, prompt: str, max_tokens: int) -> Reply:
        """The model's answer to one user message, at temperature 0.

        Raises:
            EndpointError: refused, or unreachable after all attempts.
        """
        url = f"{self.check()}/chat/completions"
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        request = Request(url, json.dumps(body).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_unredirected_header("Authorization", f"Bearer {os.environ[KEY_VARIABLE]}")
        trouble = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                with build_opener(_NoRedirect).open(request, timeout=self.timeout) as stream:
                    return _reply(url, json.load(stream))
            except HTTPError as error:
                trouble = f"HTTP {error.code}"
                if error.code not in AGAIN:
                    raise EndpointError(f"{url} refused the request: {trouble}") from None
            except (URLError, OSError, ValueError) as error:
                trouble = str(getattr(error, "reason", error))
        raise EndpointError(f"{url}: {trouble}, {self.attempts} times; run the same command again")


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the conversation to a host that nobody named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""
        return None


def _reply(url: str, answer: Any) -> Reply:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError(f"{url} answered without choices[0].message.content") from error
    usage = answer.get("usage") or {}
    counts = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
    return Reply(text or "", *map(int, counts))
