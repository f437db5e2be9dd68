// Links into the page: they carry a tab, a model and what stands in the tab's box, never anything else of the address.
const LINK_CHARACTERS = 4000;
const TABS = ["chat", "text", "classify", "models"];
const BOXES = { chat: "#message textarea", text: "#text-box", classify: "#classify-text textarea" };

function openTab() {
  return document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.id.replace("-tab-button", "") ?? "chat";
}

// The link to what is on the screen, or null where the text is too long for one.
function linkHere(model) {
  const tab = openTab();
  const prompt = document.querySelector(BOXES[tab])?.value ?? "";
  const link = new URL(location.pathname, location.origin);
  link.search = new URLSearchParams({ tab, model, ...(prompt && { prompt }) });
  return link.href.length > LINK_CHARACTERS ? null : link;
}

async function copyLink(model, words) {
  const link = linkHere(model);
  if (!link) {
    say("link-note", words.link_long);
    return;
  }
  history.replaceState(history.state, "", link);
  try {
    await navigator.clipboard.writeText(link.href);
    say("link-note", words.link_copied);
  } catch {
    say("link-note", words.link_shown); // no clipboard without https
  }
}

// A text that is there already stays; the text tab keeps it as a branch and takes the link's.
function fillBox(tab, prompt) {
  if (tab === "text") {
    window.llamaDemoText.take(prompt);
    return;
  }
  const box = document.querySelector(BOXES[tab]);
  if (!box || box.value) return;
  box.value = prompt;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

// Does what the address asks for, once: a reload finds the page as it was left. Returns the model that it names.
function followLink() {
  const address = new URL(location.href);
  const { tab, model = "", prompt } = Object.fromEntries(address.searchParams);
  for (const name of ["tab", "model", "prompt"]) address.searchParams.delete(name);
  if (address.href !== location.href) history.replaceState(history.state, "", address);
  const asked = TABS.includes(tab) ? tab : "chat";
  whenMounted(`${asked}-tab-button`, () => part(`${asked}-tab-button`).click());
  if (prompt && BOXES[asked]) whenReady(asked, () => fillBox(asked, prompt));
  return model;
}

function whenReady(tab, action) {
  const ready = tab === "chat" ? document.querySelector(BOXES.chat) : document.body.classList.contains(`${tab}-ready`);
  if (ready) action();
  else setTimeout(() => whenReady(tab, action), 50);
}
