// Opens every page of a site in a frame and leaves what it found as JSON: width that overflows,
// texts that are too pale, links within the page that lead nowhere. WIDTH and PAGES are filled in.
const wait = (frame, address) =>
  new Promise(done => { frame.onload = done; frame.src = address });
const light = text => {
  const [r, g, b] = text.match(/[\d.]+/g).slice(0, 3).map(v => {
    v /= 255;
    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
  return .2126 * r + .7152 * g + .0722 * b };
const ground = (node, view) => {
  for (; node; node = node.parentElement) {
    const one = view.getComputedStyle(node).backgroundColor;
    if (!/, 0\)$/.test(one)) return one }
  return "rgb(255, 255, 255)" };
const contrast = (node, view) => {
  const inside = node.closest("svg"), own = view.getComputedStyle(node);
  const [a, b] = [light(own[inside ? "fill" : "color"]), light(ground(node, view))].sort();
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) };
const says = node => [...node.childNodes].some(one => one.nodeType == 3 && one.textContent.trim());
const look = async () => {
  const found = [], frame = document.createElement("iframe");
  frame.width = WIDTH; frame.height = 900; document.body.append(frame);
  for (const address of PAGES) {
    await wait(frame, address);
    const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
    for (const one of page.querySelectorAll("details")) one.open = true;
    const texts = [...page.querySelectorAll("body *")].filter(
      node => says(node) && !["STYLE", "TITLE"].includes(node.tagName));
    const pale = texts.filter(node => contrast(node, view) < 4.5).map(
      node => node.tagName + node.textContent.slice(0, 40));
    const missing = [...page.querySelectorAll("a[href^='#']")].filter(
      one => !page.getElementById(one.hash.slice(1)));
    found.push({
      address, wide: root.scrollWidth - root.clientWidth, texts: texts.length,
      shown: root.clientWidth, pale: pale.slice(0, 5), missing: missing.length }) }
  document.body.innerHTML = "";
  document.body.append(Object.assign(
    document.createElement("pre"), {id: "found", textContent: JSON.stringify(found)})) };
look();
