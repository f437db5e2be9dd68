"""The page at the width of a phone and of a desk: nothing is cut off, whatever the conversation holds."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served
from tests.browser.tab_page import wrong_with

TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((element) => {
    const box = element.getBoundingClientRect();
    const seen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!box.width || !box.height || !seen) return false;
    if (element.closest("pre, table, .sr-only, .visually-hidden")) return false;
    return box.right > innerWidth + 1 || box.left < -1;
  })
  .map((element) => `${element.tagName}#${element.id}.${element.className}`)"""
WIDER = """(places) => [...document.querySelectorAll(places)]
  .filter((place) => place.scrollWidth > innerWidth).map((place) => `${place.tagName}#${place.id}`)"""
CUT = "(input) => input.scrollWidth > input.clientWidth"
_TABLE = f"|{' a |' * 12}\n|{'-|' * 12}\n|{' word |' * 12}"
WIDE = {
    "id": "wide",
    "updated": 1,
    "title": "w" * 80,
    "settings": None,
    "turns": [
        {"role": "user", "content": "w" * 300},
        {
            "role": "assistant",
            "content": f"{_TABLE}\n\n```\n{'code ' * 60}\n```\n\nhttps://example.com/{'x' * 200}",
            "model": "m",
            "figures": {"first": 0.08, "speed": 94, "written": 31, "read": 369},
            "finish": "length",
            "context": {"used": 400, "room": 2048},
        },
    ],
}
STORE = """(conversation) => {
  localStorage.setItem("llama-demo.conversation.wide", JSON.stringify(conversation));
  sessionStorage.setItem("llama-demo.current", "wide");
}"""


def cut_off(chat: ChatPage) -> list[str]:
    """What reaches beyond the window, and whether the page scrolls sideways."""
    return [*wrong_with(chat.page, TOO_WIDE), *wrong_with(chat.page, WIDER, "html")]


def test_on_a_phone_nothing_is_cut_off(phone: BrowserContext, served: Served) -> None:
    chat = ChatPage(phone.new_page(), served.address)
    assert cut_off(chat) == []
    assert chat.page.locator("#language input").evaluate(CUT) is False
    chat.page.evaluate(STORE, WIDE)
    chat.reload()
    expect(chat.page.locator("#conversation")).to_contain_text("www")
    assert cut_off(chat) == []


def test_on_a_phone_the_drawers_open_one_at_a_time_and_close(phone: BrowserContext, served: Served) -> None:
    chat = ChatPage(phone.new_page(), served.address)
    conversations, settings = chat.page.locator("#conversations-panel"), chat.page.locator("#settings-panel")
    expect(conversations).to_be_hidden()
    expect(settings).to_be_hidden()
    chat.page.tap("#show-settings")
    expect(settings).to_be_visible()
    assert cut_off(chat) == []
    settings.get_by_role("button", name="Close").tap()
    expect(settings).to_be_hidden()
    chat.page.tap("#show-conversations")
    expect(conversations).to_be_visible()
    assert cut_off(chat) == []
    chat.page.keyboard.press("Escape")
    expect(conversations).to_be_hidden()


def test_on_a_phone_the_composer_stays_above_the_keyboard(phone: BrowserContext, served: Served) -> None:
    chat = ChatPage(phone.new_page(), served.address)
    chat.page.set_viewport_size({"width": 390, "height": 420})
    chat.page.wait_for_function("() => document.querySelector('#composer').getBoundingClientRect().bottom <= 420")
    box = chat.box.bounding_box()
    assert box is not None
    assert 0 < box["y"] < box["y"] + box["height"] <= 420


def test_on_a_desk_the_column_for_reading_is_at_most_760_pixels(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), served.address)
    chat.page.set_viewport_size({"width": 1600, "height": 900})
    expect(chat.page.locator("#settings-panel")).to_be_visible()
    box = chat.page.locator("#chat-column").bounding_box()
    assert box is not None
    assert box["width"] <= 760
    chat.page.click("#show-settings")
    expect(chat.page.locator("#settings-panel")).to_be_hidden()
    assert cut_off(chat) == []


def test_the_header_names_the_model_its_state_the_memory_and_the_profile(
    context: BrowserContext, served: Served
) -> None:
    chat = ChatPage(context.new_page(), served.address)
    expect(chat.page.locator("#status-model")).to_have_text("ready", timeout=120_000)
    expect(chat.page.locator("#status-memory")).to_contain_text("CPU")
    expect(chat.page.locator("#status-profile")).to_have_text("fast")
    expect(chat.page.locator("#about")).to_contain_text("keeps nothing")
