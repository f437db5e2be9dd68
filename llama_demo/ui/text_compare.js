// The text tab's comparison: one prompt and one seed on two sides. It shares the state of `text.js`.

function defaultSides() {
  const other = models.find(({ name, fits }) => fits && name !== settings.model)?.name ?? settings.model;
  const { temperature } = settings.sampling;
  return [
    { model: settings.model, chat: false, temperature },
    { model: other, chat: other === settings.model, temperature },
  ];
}

function compare() {
  const seed = settings.sampling.seed ?? Math.floor(Math.random() * 2 ** 31);
  compared = state.sides.map(({ model: name, chat, temperature }) =>
    sideRequest(state.text, {
      model: name,
      as_chat: chat,
      n: 1,
      sampling: { ...settings.sampling, temperature, seed },
    }),
  );
  sides = [];
  ask({ kind: "complete", sides: compared }, { kind: "compare" });
}

function drawSides() {
  const drawn = state.sides.map((_, index) => {
    const { note = "", error = "", parts = [] } = sides[index] ?? {};
    const one = parts[0];
    const taken = () => {
      const { prompt, as_chat: chat } = compared[index];
      state.chat = chat;
      const prefix = chat ? `${prompt.trimEnd()}\n\n` : prompt;
      const meta = { prefix, from: prefix.length, fresh: chat, head: 0, headText: 0, chat };
      const branch = keep(meta, sides[index], one);
      state.view = "text";
      take(branch);
    };
    const nothing = one && !one.text && !error ? words.nothing : "";
    const card = { note: busy ? note : nothing, error, stats: figuresOf(sides[index]), text: one?.text ?? "", label: words.take };
    return drawCard({ ...card, take: !busy && one?.text ? taken : null });
  });
  const heads = [...part("compare-view").querySelectorAll(".side-head")];
  drawn.forEach((card, index) => card.prepend(heads[index] ?? sideHead(index)));
  replaceCards(part("compare-view"), drawn);
}

// What a side is asked with. It is built once: it holds what the visitor is choosing.
function sideHead(index) {
  const side = state.sides[index];
  const change = (name, value) => {
    side[name] = value;
    save();
  };
  const names = make("select", { ariaLabel: words.model, onchange: (event) => change("model", event.target.value) });
  for (const { name, title, fits } of models) names.append(make("option", { value: name, disabled: !fits }, title));
  names.value = side.model;
  const mode = make("select", { ariaLabel: words.mode, onchange: (event) => change("chat", event.target.value === "chat") });
  mode.append(make("option", { value: "raw" }, words.raw), make("option", { value: "chat" }, words.as_chat));
  mode.value = side.chat ? "chat" : "raw";
  const heat = make("input", { type: "number", min: 0, max: 2, step: 0.1, value: side.temperature });
  heat.addEventListener("change", () => change("temperature", Number(heat.value) || 0));
  const label = make("label", {}, `${words.temperature} `, heat);
  return make("div", { className: "side-head" }, names, mode, label);
}
