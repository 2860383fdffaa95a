// Makes one element equal to another by changing only what differs, so that a person keeps their selection, focus, input,
// scroll position and open menus.

const OURS = new Set(["open", "data-copied"]); // attributes that the page sets itself, not the server

export function morph(from, to) {
  if (from.isEqualNode(to)) return;
  sameAttributes(from, to);
  let at = from.firstChild;
  const keyed = new Map();
  for (const child of from.children) if (keyOf(child)) keyed.set(keyOf(child), child);
  for (const wanted of [...to.childNodes]) {
    const found = match(wanted, at, keyed);
    if (!found) {
      from.insertBefore(document.importNode(wanted, true), at);
      continue;
    }
    if (found !== at) from.insertBefore(found, at);
    else at = at.nextSibling;
    if (found.nodeType === Node.ELEMENT_NODE) morph(found, wanted);
    else if (found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function match(wanted, at, keyed) {
  const key = keyOf(wanted);
  if (key) {
    const known = keyed.get(key);
    return known && known.nodeName === wanted.nodeName ? known : null;
  }
  return at && at.nodeName === wanted.nodeName && !keyOf(at) ? at : null;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key : "";
}

function sameAttributes(from, to) {
  for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && !OURS.has(name)) from.removeAttribute(name);
}
