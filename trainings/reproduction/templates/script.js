"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // ------------------------------------------------------------------------------------- tables
  const valueOf = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });

  for (const button of all(".sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), table = head.closest("table");
      const column = [...head.parentNode.children].indexOf(head);
      const isNumber = column > 0 && !head.textContent.includes("Method");
      const first = isNumber ? "descending" : "ascending", second = isNumber ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = all("tbody tr", table).map((row) => [valueOf(row.children[column]), row]);
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      one("tbody", table).append(...rows.map(([, row]) => row));
    });
  }

  const tables = all(".class-table"), tabs = one("#class-tabs");
  if (tables.length > 1) {
    const show = (chosen) => tables.forEach((table, index) => {
      table.hidden = index !== chosen;
      tabs.children[index].setAttribute("aria-pressed", index === chosen);
    });
    tabs.append(...tables.map((table, index) =>
      element("button", { type: "button", textContent: table.dataset.title, onclick: () => show(index) })));
    tabs.hidden = false;
    show(0);
  }

  // ------------------------------------------------------------------------------ curves, copying
  for (const chart of all(".chart")) {
    for (const key of all(".key", chart)) {
      const line = one(`.series[data-series="${key.dataset.series}"]`, chart);
      const pick = (on) => { chart.classList.toggle("picking", on); line.classList.toggle("on", on); };
      key.addEventListener("click", () => {
        const shown = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", shown);
        line.classList.toggle("off", !shown);
      });
      for (const event of ["pointerenter", "focus"]) key.addEventListener(event, () => pick(true));
      for (const event of ["pointerleave", "blur"]) key.addEventListener(event, () => pick(false));
    }
  }

  const say = (text) => {
    const status = one("#status");
    status.textContent = text;
    status.classList.add("shown");
    setTimeout(() => status.classList.remove("shown"), 1500);
  };
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const code = one("code", button.parentNode);
      try {
        await navigator.clipboard.writeText(code.textContent);
        say("Copied");
      } catch {  // a page from a disk may not be allowed to
        getSelection().selectAllChildren(code);
        say("Selected: copy it with Ctrl-C");
      }
    });
  }

  // -------------------------------------------------------------------------------------- viewer
  const data = one("#viewer-data");
  if (!data) return;
  const { classes, error, sets } = JSON.parse(data.textContent);
  const PHOTO = "photograph", TRUTH = "truth";
  const rgb = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  const names = new Map(classes.map(({ name, color }) => [rgb(color).join(), name]));
  const [left, right, opacity, wipe, stage] = ["left", "right", "opacity", "wipe", "stage"].map((id) => one(`#${id}`));
  const state = { set: 0, image: 0, truth: false, errors: false, alone: null };
  const decoded = new Map();
  let drawn = {};

  const pixels = async (url, width, height) => {
    if (!decoded.has(url)) {
      const picture = new Image();
      picture.src = url;
      await picture.decode();
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0, width, height);
      decoded.set(url, context.getImageData(0, 0, width, height).data);
    }
    return decoded.get(url);
  };
  const nameAt = (map, at) => names.get([map[at], map[at + 1], map[at + 2]].join()) ?? "not labelled";
  const same = (a, b, at) => a[at] === b[at] && a[at + 1] === b[at + 1] && a[at + 2] === b[at + 2];

  const blended = (photo, map, truth) => {
    const share = opacity.value / 100, wrong = rgb(error);
    const alone = state.alone === null ? null : rgb(classes[state.alone].color);
    const result = new Uint8ClampedArray(photo.length);
    for (let at = 0; at < photo.length; at += 4) {
      const grey = 0.3 * photo[at] + 0.59 * photo[at + 1] + 0.11 * photo[at + 2];
      const ignored = truth && truth[at] + truth[at + 1] + truth[at + 2] === 0;
      const is = (color) => map[at] === color[0] && map[at + 1] === color[1] && map[at + 2] === color[2];
      for (let c = 0; c < 3; c++) {
        let under = photo[at + c], over = map ? map[at + c] : under;
        if (map && state.errors) {
          under = 255 - 0.4 * (255 - grey);
          over = ignored ? 0 : same(map, truth, at) ? under : wrong[c];
        } else if (map && alone && !is(alone)) {
          under = over = 255 - 0.35 * (255 - grey);
        }
        result[at + c] = under + share * (over - under);
      }
      result[at + 3] = 255;
    }
    return result;
  };

  const draw = async () => {
    const set = sets[state.set], image = set.images[state.image];
    const size = [image.width, image.height];
    const photo = await pixels(image.photo, ...size), truth = image.truth && await pixels(image.truth, ...size);
    const next = { image, truth };
    for (const [side, select] of [["left", left], ["right", right]]) {
      const number = Number(select.value), isMethod = !Number.isNaN(number);
      const asTruth = state.truth || select.value === TRUTH;
      const map = select.value === PHOTO && !state.truth ? null : asTruth ? truth : await pixels(image.maps[number], ...size);
      const canvas = one(`#${side}-canvas`);
      [canvas.width, canvas.height] = size;
      canvas.getContext("2d").putImageData(new ImageData(blended(photo, map, truth), ...size), 0, 0);
      next[side] = map;
      const method = isMethod && !asTruth ? set.methods[number] : null;
      const title = method ? method.name : asTruth ? "Truth" : "Photograph";
      const iou = method && image.ious[number] !== null ? `mIoU ${image.ious[number].toFixed(1)} %` : "";
      const mark = element("span", { className: "mark" });
      mark.style.background = method ? `var(--c${method.color})` : "var(--rule)";
      one(`#${side}-caption`).replaceChildren(element("span", {}, mark, title), element("b", { textContent: iou }));
      canvas.setAttribute("aria-label", `${title} on ${image.name}${iou && `: ${iou}`}`);
    }
    drawn = next;
    all("#thumbs button").forEach((button, index) => button.setAttribute("aria-pressed", index === state.image));
    for (const name of ["truth", "errors"]) one(`#${name}`).setAttribute("aria-pressed", state[name]);
    all("#legend button").forEach((button, index) => button.setAttribute("aria-pressed", index === state.alone));
  };

  const choose = (index) => {
    state.set = index;
    const { methods, images } = sets[index], labelled = images.every(({ truth }) => truth);
    for (const part of all(".needs-truth")) part.hidden = !labelled;
    if (!labelled) state.truth = state.errors = false;
    const options = () => [
      ...methods.map(({ name }, number) => element("option", { value: number, textContent: name })),
      ...(labelled ? [element("option", { value: TRUTH, textContent: "Truth" })] : []),
      element("option", { value: PHOTO, textContent: "Photograph" }),
    ];
    left.replaceChildren(...options());
    right.replaceChildren(...options());
    left.value = sets[index].left;
    right.value = sets[index].right;
    state.image = Math.min(state.image, images.length - 1);
    one("#thumbs").replaceChildren(...images.map((image, number) => element(
      "button", { type: "button", onclick: () => { state.image = number; draw(); } },
      element("img", { src: image.photo, alt: image.name, title: image.name }),
    )));
    return draw();
  };

  const setView = (slider) => {
    stage.classList.toggle("slider", slider);
    wipe.parentNode.hidden = !slider;
    one(`input[name="view"][value="${slider ? "slider" : "side"}"]`).checked = true;
  };
  const setWipe = (percent) => {
    wipe.value = percent;
    stage.style.setProperty("--wipe", `${percent}%`);
  };
  const flip = (name) => {
    if (one(`#${name}`).hidden) return;
    state[name] = !state[name];
    draw();
  };
  const step = (by) => {
    const count = sets[state.set].images.length;
    state.image = (state.image + by + count) % count;
    draw();
  };

  one("#set").append(...sets.map(({ title }, index) => element("option", { value: index, textContent: title })));
  one("#set").addEventListener("change", (event) => choose(Number(event.target.value)));
  one("#legend").append(...classes.map(({ name, color }, index) => {
    const chip = element("i");
    chip.style.background = color;
    const pick = () => { state.alone = state.alone === index ? null : index; draw(); };
    return element("button", { type: "button", onclick: pick }, chip, name);
  }));
  for (const input of [left, right, opacity]) input.addEventListener("input", draw);
  for (const radio of all('input[name="view"]')) radio.addEventListener("change", () => setView(radio.value === "slider"));
  wipe.addEventListener("input", () => setWipe(wipe.value));
  for (const name of ["truth", "errors"]) one(`#${name}`).addEventListener("click", () => flip(name));

  const placeIn = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const drag = (event) => {
    const [x] = placeIn(event, one("#left-canvas"));
    setWipe(Math.round(100 * Math.min(1, Math.max(0, x))));
  };
  stage.addEventListener("pointerdown", (event) => {
    if (!stage.classList.contains("slider") || event.target.tagName !== "CANVAS") return;
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) drag(event); });
  for (const canvas of all("#stage canvas")) {
    canvas.addEventListener("pointermove", (event) => {
      if (!drawn.image) return;
      const [x, y] = placeIn(event, canvas), { width, height } = drawn.image;
      const at = 4 * (Math.min(height - 1, Math.max(0, Math.floor(y * height))) * width + Math.min(width - 1, Math.max(0, Math.floor(x * width))));
      const part = (side) => drawn[side] ? nameAt(drawn[side], at) : "–";
      one("#readout").replaceChildren(
        "left ", element("b", { textContent: part("left") }), ", right ", element("b", { textContent: part("right") }),
        ...(drawn.truth ? [", truth ", element("b", { textContent: nameAt(drawn.truth, at) })] : []));
    });
    canvas.addEventListener("pointerleave", () => { one("#readout").textContent = "\u00a0"; });
  }
  document.addEventListener("keydown", (event) => {
    const focused = document.activeElement;
    const isFree = focused === document.body || one("#viewer").contains(focused);
    if (!isFree || event.ctrlKey || event.metaKey || event.altKey || focused.matches("select")) return;
    const moves = !focused.matches("input");
    const keys = {
      t: () => flip("truth"), e: () => flip("errors"), s: () => setView(!stage.classList.contains("slider")),
      ...(moves && { ArrowLeft: () => step(-1), ArrowRight: () => step(1) }),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  setWipe(50);
  choose(0);
})();
