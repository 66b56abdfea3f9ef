"""Chat's clients work unchanged: ``ai`` 4 to 7, ``openai`` from npm and PyPI, the durable transport."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.chat_peers import AI, V4, V5_AND_LATER, ask_client, ask_openai
from tests.fake_openai import CUT, DONE, STALL, WHOLE, FakeOpenAI, delta, finish, sse, token, usage
from tests.harness import LiveServer, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("npm_clients")]

HI = [{"role": "user", "content": "Hi"}]
NUMBERS = "".join(f"{number} " for number in range(20))
SLOWLY = [step for number in range(20) for step in (token(f"{number} "), 0.02)]


@pytest.fixture(scope="module")
def model() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def upstream(model: FakeOpenAI, chat: LiveServer) -> FakeOpenAI:
    """The model's server, as new; no answer of another test is being made any more."""
    eventually(lambda: b"perennial_chat_running 0.0" in chat.get("/metrics")[1])
    model.plays(*WHOLE)
    model.requests.clear()
    model.left_at = None
    return model


@pytest.fixture(scope="module")
def chat(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    env = {"OPENAI_BASE_URL": model.url, "CHAT_MODEL": "a-model", "CHAT_IDLE_S": "5", "CHAT_HEADERS_S": "10"}
    server = LiveServer(tmp_path_factory.mktemp("chat"), env | {"CHAT_FIRST_TOKEN_S": "1", "CHAT_RETRIES": "0"})
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def url(chat: LiveServer) -> str:
    return f"{chat.url}/api/chat"


# The AI SDK


@pytest.mark.parametrize("package", ["ai-4", *AI])
def test_ai_sdk_works_unchanged(url: str, upstream: FakeOpenAI, package: str) -> None:
    """From its own request to its own state: an answer, a failure in it, a refusal before it, a text."""
    seen = ask_client(package, url)
    assert (seen["status"], seen["text"]) == ("ready", "Hello")
    assert upstream.requests[-1][2]["messages"] == HI
    upstream.plays(token("Hel"), CUT)
    seen = ask_client(package, url)
    assert (seen["status"], seen["text"], seen["error"]) == ("error", "Hel", "The connection to the model was lost.")
    upstream.refuses(401, "no")
    assert ask_client(package, url)["error"] == "The model's server refused this server's key."


@pytest.mark.parametrize("package", AI)
def test_ai_sdk_resumes(url: str, upstream: FakeOpenAI, package: str) -> None:
    """The connection is lost in the middle, the page is opened again: the text is there, exactly, without user code."""
    upstream.plays(*SLOWLY, finish(), usage(3, 20), DONE)
    seen = ask_client(package, url, scenario="dropped")
    assert seen["before"] != NUMBERS
    assert NUMBERS.startswith(seen["before"])
    assert (seen["status"], seen["text"], seen["error"]) == ("ready", NUMBERS, None)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("package", [each for each in V5_AND_LATER if each != "ai-5.0.0"])
def test_ai_sdk_resumes_with_half_an_answer(url: str, upstream: FakeOpenAI, package: str) -> None:
    """The same message by its id, not a second one (5.0.0 appends to it, whatever a server sends)."""
    upstream.plays(*SLOWLY, finish(), usage(3, 20), DONE)
    seen = ask_client(package, url, scenario="again")
    assert (seen["status"], seen["text"], seen["count"]) == ("ready", NUMBERS, 2)


@pytest.mark.parametrize("package", AI)
def test_ai_sdk_finds_nothing_to_resume(url: str, package: str) -> None:
    """A page of a chat that was never asked anything is ready, without a message and without an error."""
    seen = ask_client(package, url, scenario="resume", chat="never-asked")
    assert (seen["text"], seen["error"]) == ("", None)


@pytest.mark.parametrize("package", V5_AND_LATER)
def test_ai_sdk_is_told_of_a_stop(url: str, upstream: FakeOpenAI, package: str) -> None:
    """The answer ends where it was stopped; that is no error."""
    upstream.plays(*SLOWLY, STALL)
    seen = ask_client(package, url, scenario="stop")
    assert (seen["status"], seen["error"]) == ("ready", None)
    assert seen["text"].startswith("0 1 2 3 4 5 6 7 ")
    assert upstream.left_at is not None


@pytest.mark.parametrize("package", AI)
def test_ai_sdk_reads_text(url: str, upstream: FakeOpenAI, package: str) -> None:
    """Text transports send the same body as the others: the header (or ?protocol=text) is what tells them apart."""
    api = f"{url}?protocol=text" if package == V4 else url
    seen = ask_client(package, api, scenario="text")
    assert (seen["status"], seen["text"]) == ("ready", "Hello")


@pytest.mark.parametrize("package", AI)
def test_ai_sdk_gets_calls_of_tools(url: str, upstream: FakeOpenAI, package: str) -> None:
    """With their input as an object."""
    call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
    upstream.plays(delta(tool_calls=[call]), finish("tool_calls"), DONE)
    (tool,) = ask_client(package, url)["tools"]
    assert tool.get("args", tool.get("input")) == {"city": "Köln"}


@pytest.mark.parametrize("package", ["ai-6", "ai-7"])
def test_durable_transport_works_unchanged(url: str, upstream: FakeOpenAI, package: str) -> None:
    """@durable-streams/aisdk-transport reads the run by its Location, and a second page resumes by it."""
    upstream.plays(*SLOWLY, finish(), usage(3, 20), DONE)
    seen = ask_client(package, url, scenario="durable")
    assert (seen["status"], seen["text"], seen["before"]) == ("ready", NUMBERS, NUMBERS)
    upstream.plays(token("Hel"), CUT)
    seen = ask_client(package, url, scenario="durable")
    assert (seen["status"], seen["error"]) == ("error", "The connection to the model was lost.")


# OpenAI's own


def test_openai_from_npm_works_unchanged(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """With this server as its base URL: a stream, a whole answer, the models, and errors as it raises them."""
    seen = ask_openai(f"{chat.url}/v1", "a-model")
    assert (seen["text"], seen["reason"], seen["usage"]["total_tokens"]) == ("Hello", "stop", 5)
    assert seen["whole"]["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert seen["models"] == ["a-model"]
    upstream.plays(token("Hel"), sse({"error": {"message": "x"}}))
    seen = ask_openai(f"{chat.url}/v1", "a-model")
    assert seen["text"] == "Hel"
    assert "The model reported an error in the middle of its answer." in seen["error"]["message"]
    upstream.refuses(429, "no", {"Retry-After": "7"})
    assert ask_openai(f"{chat.url}/v1", "a-model")["error"]["name"] == "RateLimitError"


def test_openai_from_pypi_works_unchanged(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """The same with Python's, which is also the client of this server itself."""
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="any", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="a-model", messages=HI, stream=True))  # type: ignore[arg-type]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
        assert chunks[-1].choices[0].finish_reason == "stop"
        whole = client.chat.completions.create(model="a-model", messages=HI)
        assert whole.usage
        assert (whole.choices[0].message.content, whole.usage.total_tokens) == ("Hello", 5)
        assert [each.id for each in client.models.list()] == ["a-model"]
        for steps in ((STALL,), (token("Hel"), CUT)):
            upstream.plays(*steps)
            with pytest.raises(openai.APIError, match=r"The (model|connection)"):
                list(client.chat.completions.create(model="a-model", messages=HI, stream=True))
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("another")
        upstream.refuses(429, "no")
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="a-model", messages=HI)


def test_openai_from_pypi_passes_over_heartbeats(live_server: type[LiveServer], upstream: FakeOpenAI) -> None:
    """Comments, and no ids beside them: it would read an event without data, and raise."""
    server = live_server(OPENAI_BASE_URL=upstream.url, HEARTBEAT_S=0.1)  # type: ignore[call-arg]
    upstream.plays(token("a"), 0.5, token("b"), finish(), DONE)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="", messages=HI, stream=True))  # type: ignore[arg-type]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ab"
