// Elements. Everything that comes from elsewhere becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** An element with attributes and children; texts become text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same, of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A text that is not announced or laid out again where it is the same. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** A time as a clock shows it, for machines as well. */
export function clock(timestamp) {
  const date = new Date(timestamp);
  return el("time", { datetime: timestamp, title: date.toLocaleString() }, CLOCK.format(date));
}

/** `1 event`, `2 events`. */
export function counted(count, one, several = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : several}`;
}

/** The name of a repository, its owner less loud. */
export function repositoryName(name) {
  const slash = name.indexOf("/") + 1;
  return el(
    "span",
    { class: "repository-name" },
    el("span", { class: "owner" }, name.slice(0, slash)),
    el("wbr"),
    name.slice(slash),
  );
}

/** The type of an event, its category with a colour. */
export function eventType(type) {
  const [category] = type.split(".", 1);
  return el(
    "span",
    { class: "type", "data-category": category },
    el("span", { class: "category" }, category),
    type.slice(category.length),
  );
}
