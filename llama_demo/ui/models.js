// The Models tab: asks the server what there is while the tab is shown, often while something moves, and tells it what
// to do. The server says everything in words; nothing is decided here.
let { words } = props.value;
let timer = 0;
let drawn = "";

function asked(data = {}) {
  return { language: window.llamaDemoLanguage, ...data };
}

function shown() {
  return element.isConnected && !document.hidden && part("models-scroll")?.offsetParent !== null;
}

async function refresh() {
  clearTimeout(timer);
  let wait = 5000;
  if (shown()) {
    try {
      const view = await server.read_models(asked());
      draw(view);
      wait = view.moving ? 700 : 4000;
    } catch {
      say("models-error", words.away);
    }
  }
  clearTimeout(timer);
  if (element.isConnected) timer = setTimeout(refresh, shown() ? wait : 1000);
}

async function act(action, name, data = {}) {
  try {
    const view = await server.act(asked({ do: action, name, ...data }));
    draw(view);
    say("models-error", view.error);
    window.dispatchEvent(new CustomEvent("llama-demo:status"));
  } catch {
    say("models-error", words.away);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, 300);
}

function draw(view) {
  if (part("models-error").textContent === words.away) say("models-error", "");
  say("models-intro", words.intro);
  drawKeyed(part("models-devices"), view.devices, (device) => drawDevice(device, act));
  drawKeyed(part("models-groups"), view.groups, (group, old) =>
    drawGroup(group, old, (card) => drawCard(card, words, act)),
  );
  element.querySelector("#models-scroll").dataset.ready = "yes";
}

watch("value", () => {
  words = props.value.words;
  refresh();
});
document.addEventListener("visibilitychange", refresh);
whenMounted("models-scroll", () => {
  say("models-intro", words.reading);
  new IntersectionObserver(refresh).observe(part("models-scroll"));
  refresh();
});
