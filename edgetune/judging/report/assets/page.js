
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const list = find("list"), more = find("more"), search = find("search"), sort = find("sort");
  const CHUNK = 40, MOST_VALUES = 4;
  const TONES = {worse: "regression", wrong: "regression", better: "pass", right: "pass"};
  const FILTERS = [
    ["all", "all", () => true],
    ["worse", "got worse", (item) => item.status === "worse"],
    ["better", "got better", (item) => item.status === "better"],
    ["same", "same", (item) => item.status === "same"],
    ["wrong", "wrong", (item) => item.status === "wrong"],
    ["right", "right", (item) => item.status === "right"],
    ["unscored", "unscored", (item) => item.unscored],
    ["degenerate", "degenerate", (item) => item.degenerate],
  ];
  const ORDERS = {worst: (a, b) => a.rank - b.rank, best: best, suite: (a, b) => a.place - b.place};
  const state = {filter: "all", query: "", matched: [], shown: 0};

  function best(a, b) {
    const unknown = Number(Boolean(a.unknown)) - Number(Boolean(b.unknown));
    return unknown || b.rank - a.rank;
  }

  // Everything that was judged goes in as a text node: no markup of its own is ever read.
  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function marked(text) {
    if (!state.query) return [text];
    const parts = text.split(state.pattern);
    return parts.map((part, place) => (place % 2 ? make("mark", "", part) : part));
  }

  function block(label, text, className = "text") {
    const shown = make("div", className, ...marked(text));
    shown.dir = "auto";
    return label ? [make("p", "label", label), shown] : [shown];
  }

  function searchable(item) {
    const parts = [item.id, item.where, item.text, item.gold, item.cluster, ...(item.references || [])];
    for (const [role, text] of item.context || []) parts.push(role, text);
    for (const side of item.sides) {
      parts.push(side.label, side.text, side.reasoning);
      for (const grade of side.grades || []) parts.push(grade.judge, grade.reason, grade.problem, grade.spared);
    }
    for (const one of item.preferences || []) parts.push(one.judge, one.reason, one.problem, one.spared);
    return parts.filter(Boolean).join("\n").toLowerCase();
  }

  // Right and wrong speak for themselves; any other value has the name of its metric beside it.
  function movements(item) {
    const texts = data.main.slice(0, MOST_VALUES).map((metric) => {
      const values = item.sides.map((side) => side.values[metric]).join(" → ");
      return /[0-9–]/.test(values) || data.main.length > 1 ? data.metrics[metric] + " " + values : values;
    });
    if (data.main.length > MOST_VALUES) texts.push("and " + (data.main.length - MOST_VALUES) + " more");
    return [...texts, item.preferred].filter(Boolean);
  }

  function opinion(one) {
    const box = make("div", "opinion");
    const given = one.scores
      ? one.scores.map(([name, score]) => name + " " + score).join(", ")
      : one.winner ? (one.winner === "tie" ? "a tie" : "prefers the " + one.winner) : "";
    const head = make("p", "", make("span", "by", one.judge + (one.order ? ", " + one.order : "") + ": "));
    if (given) head.append(make("span", "given", given));
    if (one.problem) head.append(make("span", "trouble", "unscored: ", ...marked(one.problem)));
    if (one.spared) head.append(make("span", "trouble", " (not asked: ", ...marked(one.spared), ")"));
    box.append(head);
    if (one.reason) box.append(...block("", one.reason));
    return box;
  }

  function sideBox(side, place) {
    const names = data.sides[place];
    const box = make("div", "side");
    const heading = make("h4", "", names.role, make("span", "", names.name));
    heading.dir = "auto";
    box.append(heading);
    const scores = make("dl", "scores");
    data.metrics.forEach((title, metric) => {
      scores.append(make("div", "", make("dt", "", title), make("dd", "", side.values[metric])));
    });
    if (data.metrics.length) box.append(scores);
    if (new Set((side.grades || []).map((grade) => grade.judge)).size > 1) box.append(make("p", "label", "The grades are means over all verdicts; those of each judge are below."));
    if (side.reasoning) {
      box.append(make("details", "reasoning", make("summary", "label", "reasoning"), ...block("", side.reasoning)));
    }
    if (side.label !== undefined) box.append(...block("", side.label, "text predicted"));
    if (side.text !== undefined) box.append(...block("", side.text || "(empty)"));
    else if (side.unanswered) box.append(make("p", "label", "unanswered: " + side.unanswered));
    else if (side.label === undefined && data.labelled) box.append(...block("", "unparsed", "text predicted"));
    if (side.finish) box.append(make("p", "label", "ended by: " + side.finish));
    for (const grade of side.grades || []) box.append(opinion(grade));
    return box;
  }

  function fill(details, item) {
    const body = make("div", "body asked");
    for (const [role, text] of item.context || []) body.append(...block(role, text));
    body.append(...block("asked", item.text));
    if (item.gold !== undefined) body.append(...block("true label", item.gold));
    for (const reference of item.references || []) body.append(...block("reference", reference));
    const pair = make("div", "pair", ...item.sides.map(sideBox));
    body.append(pair);
    for (const one of item.preferences || []) body.append(opinion(one));
    const place = [item.where, item.cluster ? "cluster " + item.cluster : ""].filter(Boolean).join(" · ");
    body.append(make("p", "label", ...marked(place)));
    details.append(body);
  }

  function row(item, open) {
    const details = make("details", "item");
    const status = make("span", "status " + (TONES[item.status] || ""), item.status || (item.unknown ? "no value" : ""));
    const gist = make("span", "gist", make("b", "", ...marked(item.id)), ...marked(item.text.slice(0, 200).replace(/\s+/g, " ")));
    const moved = make("span", "moved", ...movements(item).map((text) => make("span", "change", text)));
    gist.dir = "auto";
    for (const flag of ["unscored", "degenerate"]) if (item[flag]) moved.append(make("span", "flag", flag));
    details.append(make("summary", "", status, gist, moved));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) fill(details, item);
    });
    if (open) {
      fill(details, item);
      details.open = true;
    }
    return make("li", "", details);
  }

  function showMore() {
    const next = state.matched.slice(state.shown, state.shown + CHUNK);
    const rows = document.createDocumentFragment();
    next.forEach((item, place) => rows.append(row(item, state.open || (state.shown + place === 0))));
    list.append(rows);
    state.shown += next.length;
  }

  function show() {
    const wanted = FILTERS.find(([name]) => name === state.filter)[2];
    state.query = search.value.trim().toLowerCase();
    state.pattern = new RegExp("(" + state.query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + ")", "giu");
    state.matched = data.items.filter((item) => wanted(item) && (!state.query || item.haystack.includes(state.query)));
    state.matched.sort(ORDERS[sort.value]);
    state.shown = 0;
    list.replaceChildren();
    showMore();
    const number = state.matched.length.toLocaleString("en"), all = data.items.length.toLocaleString("en");
    find("count").textContent = number + " of " + all + (data.items.length === 1 ? " item" : " items");
  }

  function choose(filter) {
    state.filter = filter;
    for (const button of find("filters").children) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    }
    show();
  }

  function step(by) {
    const summaries = [...list.querySelectorAll(".item > summary")];
    const here = summaries.findIndex((summary) => summary.parentElement.contains(document.activeElement));
    const next = here < 0 ? 0 : here + by;
    if (next >= summaries.length && state.shown < state.matched.length) {
      showMore();
      step(by);
    } else if (summaries[next]) {
      summaries[next].focus();
      summaries[next].scrollIntoView({block: "nearest"});
    }
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape" && event.target === search) {
      search.value = "";
      show();
    } else if (!typing && event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (!typing && (event.key === "j" || event.key === "k")) {
      step(event.key === "j" ? 1 : -1);
    }
  }

  data.labelled = data.items.some((item) => item.gold !== undefined);
  data.items.forEach((item, rank) => {
    item.rank = rank;
    item.haystack = searchable(item);
  });
  for (const [name, title, wanted] of FILTERS) {
    const count = data.items.filter(wanted).length;
    if (!count && name !== "all" && !(data.paired && ["worse", "better", "same"].includes(name))) continue;
    const total = name === "all" ? data.total : data.totals[name];
    const counted = count.toLocaleString("en") + (total > count ? " of " + total.toLocaleString("en") : "");
    const button = make("button", "", title, " ", make("b", "", counted));
    button.type = "button";
    button.dataset.filter = name;
    button.addEventListener("click", () => choose(name));
    find("filters").append(button);
  }
  search.addEventListener("input", show);
  sort.addEventListener("change", show);
  find("open").addEventListener("click", () => {
    state.open = !state.open;
    find("open").textContent = state.open ? "Close all" : "Open all";
    show();
  });
  document.addEventListener("keydown", press);

  // Says of each table whether a part of it lies outside the screen, and on which side.
  for (const wide of document.querySelectorAll(".wide")) {
    const scroll = wide.querySelector(".scroll"), columns = wide.querySelectorAll("thead th").length;
    const hint = make("p", "hint", "Scroll sideways to see all " + columns + " columns.");
    hint.hidden = true;
    wide.append(hint);
    const measure = () => {
      const right = scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft;
      hint.hidden = scroll.scrollWidth <= scroll.clientWidth + 1;
      wide.dataset.more = (scroll.scrollLeft > 1 ? "left " : "") + (right > 1 ? "right" : "");
    };
    scroll.addEventListener("scroll", measure, {passive: true});
    new ResizeObserver(measure).observe(scroll);
  }
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || state.shown >= state.matched.length) return;
    showMore();
    watcher.unobserve(more);  // observed anew, it reports again when it is still in sight
    watcher.observe(more);
  }, {rootMargin: "1200px"});
  watcher.observe(more);
  find("tools").hidden = false;
  choose("all");
})();
