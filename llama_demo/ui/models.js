// The Models tab: asks the server what there is while the tab is shown, often while something moves, and tells it what
// to do. The server says everything in words; nothing is decided here.
let { words } = props.value;
let timer = 0;
let sheet = null; // the name of the model whose sheet is open
let splits = 0;
let turns = 0; // how often the server was told to do something

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

function act(action, name) {
  return tell(server.act, { do: action, name });
}

// Tells the server to do something, and shows what became of it. One that ends after a later one takes away none of
// what that one said.
async function tell(call, data) {
  const turn = ++turns;
  try {
    const view = await call(asked(data));
    draw(view);
    if (view.error || turn === turns) say("models-error", view.error);
    if (view.done || turn === turns) say("models-done", view.done);
    window.dispatchEvent(new CustomEvent("llama-demo:status"));
    clearTimeout(timer);
    timer = setTimeout(refresh, 300);
    return !view.error;
  } catch {
    say("models-error", words.away);
    return false;
  }
}

async function add(event) {
  event.preventDefault();
  if (await tell(server.add_model, { path: part("models-path").value })) part("models-path").value = "";
}

async function signIn(event) {
  event.preventDefault();
  const token = part("models-token").value;
  part("models-token").value = "";
  await tell(server.sign_in, { token, remember: part("models-remember").checked });
}

async function push(event) {
  event.preventDefault();
  const told = await tell(server.push_model, {
    name: part("models-push-name").value,
    repo: part("models-push-repo").value,
    dtype: part("models-push-dtype").value,
    pad_token: part("models-push-pad").value,
    slices: Number(part("models-push-slices").value),
    public: part("models-push-public").checked,
    confirmed: part("models-push-read").checked,
  });
  if (told) part("models-push-repo").value = "";
  part("models-push-read").checked = false;
}

// What may be put on the Hub, and what must be read before the one that is chosen is.
function drawPush(models) {
  const select = part("models-push-name");
  part("models-push").hidden = models.length === 0;
  const said = JSON.stringify(models);
  if (select.said !== said) {
    const before = select.value;
    select.replaceChildren(...models.map(({ name, title }) => make("option", { value: name }, title)));
    if (models.some(({ name }) => name === before)) select.value = before;
    select.said = said;
  }
  const { terms = "" } = models.find(({ name }) => name === select.value) ?? {};
  if (part("models-push-terms").textContent !== terms) part("models-push-read").checked = false;
  say("models-push-terms", terms);
  part("models-push-confirm").hidden = !terms;
}

function choose(action, name) {
  if (action === "sheet") openSheet(name);
  else if (action === "use") use(name);
  else act(action, name);
}

function use(name) {
  window.llamaDemoHeader.use(name);
  document.querySelector("#tabs [role=tab]").click();
}

// The header says why a model cannot be chosen: its card here does.
function showModel(name) {
  part("models-tab-button").click();
  if (sheet) closeSheet();
  const card = element.querySelector(`.model-card[data-key="${CSS.escape(name)}"]`);
  card?.scrollIntoView({ block: "center" });
  card?.classList.add("shown");
  setTimeout(() => card?.classList.remove("shown"), 3000);
}

async function openSheet(name, { focus = true } = {}) {
  sheet = name;
  const place = part("model-sheet");
  if (focus) place.replaceChildren(make("p", { className: "subdued" }, words.reading));
  part("models-scroll").classList.add("with-sheet");
  try {
    const view = await server.read_sheet(asked({ name }));
    if (sheet !== name) return;
    say("models-error", view.error);
    if (view.error) return closeSheet();
    place.replaceChildren(drawSheet(view, words, closeSheet, split));
    part("models-scroll").scrollTop = 0;
    if (focus) place.querySelector("h3").focus();
  } catch {
    closeSheet();
    say("models-error", words.away);
  }
}

function closeSheet() {
  const name = sheet;
  sheet = null;
  part("model-sheet").replaceChildren();
  part("models-scroll").classList.remove("with-sheet");
  const button = element.querySelector(`[data-key="${CSS.escape(name ?? "")}"] [data-do="sheet"]`);
  button?.focus();
}

async function split(text, bos, place) {
  const number = (splits += 1);
  try {
    const view = await server.split_text(asked({ name: sheet, text, bos }));
    if (number !== splits) return;
    if (view.error) place.replaceChildren(make("p", { className: "error" }, view.error));
    else place.replaceChildren(...drawPieces(view, words));
  } catch {
    say("models-error", words.away);
  }
}

function speak() {
  for (const spoken of element.querySelectorAll("[data-word]")) {
    const text = words[spoken.dataset.word];
    if (spoken.textContent !== text) spoken.textContent = text;
  }
  for (const field of element.querySelectorAll("[data-label]")) {
    const text = words[field.dataset.label];
    field.setAttribute("aria-label", text);
    field.title = text;
    if (field.type !== "select-one" && field.id !== "models-push-repo") field.placeholder = text;
  }
}

function draw(view) {
  if (part("models-error").textContent === words.away) say("models-error", "");
  speak();
  part("models-owner").hidden = !view.owner;
  drawPush(view.pushable);
  drawKeyed(part("models-devices"), view.devices, (device) => drawDevice(device, choose));
  drawKeyed(part("models-groups"), view.groups, (group, old) =>
    drawGroup(group, old, (card) => drawCard(card, words, choose)),
  );
  element.querySelector("#models-scroll").dataset.ready = "yes";
}

watch("value", () => {
  words = props.value.words;
  if (sheet) openSheet(sheet, { focus: false });
  refresh();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && sheet && shown()) closeSheet();
});
window.addEventListener("llama-demo:show-model", ({ detail }) => showModel(detail));
document.addEventListener("visibilitychange", refresh);
whenMounted("models-scroll", () => {
  say("models-intro", words.reading);
  part("models-add").addEventListener("submit", add);
  part("models-sign-in").addEventListener("submit", signIn);
  part("models-push").addEventListener("submit", push);
  part("models-push-name").addEventListener("change", () => drawPush(JSON.parse(part("models-push-name").said)));
  new IntersectionObserver(refresh).observe(part("models-scroll"));
  refresh();
});
