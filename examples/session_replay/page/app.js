// A small shop, the same on every load: nothing here asks for the time or for chance.
const composers = ["Bach", "Telemann", "Froberger", "Biber", "Westhoff", "Graupner", "Böhm", "Kuhnau"];
const forms = ["Partita", "Suite", "Toccata", "Sonata", "Chaconne", "Fugue"];
const works = Array.from({ length: 48 }, (_, i) => ({
  id: i,
  composer: composers[(i * 5) % composers.length],
  form: forms[(i * 7) % forms.length],
  price: 4 + ((i * 137) % 40) / 2,
  inPrint: i % 4 !== 3,
}));
const basket = new Map();
const $ = (id) => document.getElementById(id);

function staff(work) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 160 60");
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
  };
  for (let line = 0; line < 5; line++) draw("line", { x1: 0, x2: 160, y1: 10 + line * 10, y2: 10 + line * 10, stroke: "#999" });
  for (let note = 0; note < 8; note++) draw("circle", { cx: 12 + note * 19, cy: 8 + ((work.id * 11 + note * note * 7) % 45), r: 4 });
  return svg;
}

function card(work) {
  const item = document.createElement("li");
  item.dataset.work = work.id;
  item.classList.toggle("sold-out", !work.inPrint);
  const title = document.createElement("h3");
  title.textContent = `${work.form} no. ${work.id + 1}`;
  const line = document.createElement("p");
  line.textContent = `${work.composer}, ${work.price.toFixed(2)}`;
  const open = document.createElement("button");
  open.textContent = "Look inside";
  open.className = "look";
  open.onclick = () => look(item, work);
  const buy = document.createElement("button");
  buy.textContent = "Into the basket";
  buy.className = "buy";
  buy.disabled = !work.inPrint;
  buy.onclick = () => { basket.set(work.id, (basket.get(work.id) ?? 0) + 1); drawBasket(); };
  item.append(title, staff(work), line, open, buy);
  return item;
}

function look(item, work) {
  if (item.classList.toggle("open")) {
    const pages = document.createElement("table");
    for (let row = 0; row < 12; row++) {
      const bar = pages.insertRow();
      for (let beat = 0; beat < 8; beat++) bar.insertCell().textContent = "CDEFGAH"[(work.id + row * 3 + beat * beat) % 7];
    }
    item.append(pages);
  } else {
    item.querySelector("table").remove();
  }
}

const cards = works.map(card);

function drawShelf() {
  const wanted = $("filter").value.toLowerCase();
  const shown = works.filter((w) => `${w.composer} ${w.form}`.toLowerCase().includes(wanted) && (w.inPrint || !$("in-print").checked));
  const order = { shelf: (w) => w.id, price: (w) => w.price, composer: (w) => w.composer }[$("sort").value];
  shown.sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : a.id - b.id));
  $("shelf").replaceChildren(...shown.map((w) => cards[w.id]));
}

function drawBasket() {
  $("basket").replaceChildren(...[...basket].map(([id, count]) => {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.textContent = "Take out";
    remove.onclick = () => { basket.delete(id); drawBasket(); };
    item.append(`${count} × ${works[id].form} no. ${id + 1} `, remove);
    return item;
  }));
  $("total").textContent = [...basket].reduce((sum, [id, count]) => sum + count * works[id].price, 0).toFixed(2);
}

$("filter").oninput = drawShelf;
$("sort").onchange = drawShelf;
$("in-print").onchange = drawShelf;
$("order").onsubmit = (event) => {
  event.preventDefault();
  const receipt = $("receipt");
  receipt.hidden = false;
  receipt.innerHTML = "<h2>Thank you</h2>";
  const words = document.createElement("p");
  const delivery = document.querySelector("[name=delivery]:checked").value;
  words.textContent = `${$("name").value}, ${basket.size} works for ${$("total").textContent} (${delivery}): ${$("note").value}`;
  receipt.append(words);
};

drawShelf();
drawBasket();
