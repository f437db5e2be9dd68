// The probability of each token along the text, as bars; a click tells which token is there.

function drawChart(canvas, scores, colours, selected) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const count = scores.ids.length;
  const bars = Math.min(count, Math.floor(width / 2));
  const wide = Math.min(14, width / bars);
  for (let bar = 0; bar < bars; bar += 1) {
    const first = Math.floor((bar * count) / bars);
    const last = Math.max(first + 1, Math.floor(((bar + 1) * count) / bars));
    let sum = 0;
    let known = 0;
    for (let index = first; index < last; index += 1) {
      if (scores.logprobs[index] === null) continue;
      sum += Math.exp(scores.logprobs[index]);
      known += 1;
    }
    if (!known) continue;
    const mean = sum / known;
    pen.fillStyle = colours.bars[shade(mean)];
    const tall = Math.max(1.5, mean * (height - 2));
    pen.fillRect(bar * wide, height - tall, Math.max(1, wide - (wide > 3 ? 1 : 0)), tall);
  }
  if (selected === null) return;
  const at = ((selected * bars) / count) * wide;
  pen.fillStyle = colours.mark;
  pen.fillRect(at, 0, 2, height);
}

function tokenUnder(canvas, event, scores) {
  const count = scores.ids.length;
  const bars = Math.min(count, Math.floor(canvas.clientWidth / 2));
  const wide = Math.min(14, canvas.clientWidth / bars);
  const bar = Math.floor((event.clientX - canvas.getBoundingClientRect().left) / wide);
  return Math.min(count - 1, Math.max(0, Math.floor((bar * count) / bars)));
}
