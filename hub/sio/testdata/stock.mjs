// What a program with the stock client does: node stock.mjs <package.json of socket.io-client> <URL of the hub> [transport].
// It says "ok …" for each claim that holds, "kill" to have the hub killed and started again, which "killed" answers, and
// "passed" at the end.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [, , modules, url, transport] = process.argv;
const { io } = createRequire(modules)("socket.io-client");
const common = {
  forceNew: true,
  reconnectionDelay: 20,
  reconnectionDelayMax: 100,
  ...(transport ? { transports: [transport] } : {}),
};
const clients = [];
const connect = (auth, more = {}) => {
  const s = io(url, { ...common, auth, ...more });
  clients.push(s);
  return s;
};
const once = (s, event) =>
  new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${event}`)), 15000);
    s.once(event, (...args) => {
      clearTimeout(late);
      resolve(args);
    });
  });
const check = (claim, ok, got) => {
  if (!ok) throw new Error(`not so: ${claim}: ${JSON.stringify(got)}`);
  console.log(`ok ${claim}`);
};
const post = async (value) => {
  const body = JSON.stringify({ t: 1766000000000 + value, v: { n: value } });
  const resp = await fetch(`${url}/ingest/room`, { method: "POST", body });
  if (!resp.ok) throw new Error(`ingest: ${await resp.text()}`);
};
// drop breaks the connections of all viewers. To close them here would not do: the stock client emits what it has read, but
// not handled, when it is connected again, and does not count it in the offset that it sends for that.
const drop = () => fetch(`${url}/drop`, { method: "POST" });
const until = async (what, ok) => {
  for (let i = 0; i < 1500 && !ok(); i++) await new Promise((r) => setTimeout(r, 10));
  check(what, ok());
};
const bytes = (data) => [...new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength)].join();

async function refusals() {
  const [nobody] = await once(connect({}), "connect_error");
  check("nobody is refused", nobody.message === "unauthorized" && nobody.data.detail.includes("token"), nobody.data);
  const [bad] = await once(connect({ token: "bad" }), "connect_error");
  check("a bad token is refused", bad.message === "unauthorized", bad.message);
  const [space] = await once(io(`${url}/nowhere`, common), "connect_error");
  check("an unknown namespace is refused", space.message === "Invalid namespace", space.message);
}

async function greeting() {
  await post(0);
  const s = connect({ token: "viewer" });
  const first = once(s, "snapshot");
  const [text, info] = await once(s, "welcome");
  check("the welcome is that of the article", text === "web Socket Works" && info.id === s.id, [text, info]);
  const [snapshot, offset] = await first;
  check("the snapshot follows", snapshot.devices[0].metrics.n.v === 0 && typeof offset === "string", snapshot);
  if (!transport) {
    if (s.io.engine.transport.name === "polling") await once(s.io.engine, "upgrade");
    check("the transport is upgraded", s.io.engine.transport.name === "websocket");
  } else {
    check("the transport is kept", s.io.engine.transport.name === transport);
  }
  if (transport !== "polling") {
    const agreed = s.io.engine.transport.ws.extensions;
    check("compression is agreed on", agreed === "permessage-deflate", agreed);
  }
  const change = once(s, "reading");
  await post(1);
  const [frame] = await change;
  check("a change follows", frame.devices[0].metrics.n.v === 1, frame);
  const answer = await s.emitWithAck("subscribe", { mode: "all", metrics: ["n"] });
  check("the subscription is changed", answer.resumed === false, answer);
  s.disconnect();
}

async function echoes() {
  const s = connect({}, { path: "/echo/" });
  await once(s, "connect");
  const ack = await s.emitWithAck("hello", 1, "two", { three: [true, null] });
  check("an ack comes back", ack === 1, ack);
  const answer = once(s, "answer");
  s.on("question", (name, reply) => reply(`I am ${name}`, 7));
  s.emit("ask", "ann");
  check("an ack goes the other way", (await answer).join() === "I am ann,7");
  const binary = once(s, "data");
  s.emit("data", new Uint8Array([0, 1, 254, 255]), { deep: [new Uint8Array([7])] });
  const [first, second] = await binary;
  check("binary data comes back", bytes(first) === "0,1,254,255" && bytes(second.deep[0]) === "7");
  check("binary data in an ack", bytes(await s.emitWithAck("data", new Uint8Array(70000).fill(3))) === Array(70000).fill(3).join());
  const long = "ä".repeat(100000);
  check("200 kB come back", (await s.emitWithAck("long", long)) === long);
  const many = await Promise.all(Array.from({ length: 500 }, (_, i) => s.emitWithAck("n", i)));
  check("500 acks in order", many.every((n, i) => n === i));
  const gone = once(s, "disconnect");
  s.emit("drop");
  check("a broken connection", (await gone)[0].startsWith("transport"));
  await once(s, "connect");
  check("the client comes back", s.connected);
  s.disconnect();
}

// Polls that wait longer than a stranger may belong to somebody who is known.
async function patience() {
  const s = connect({ token: "viewer", subscribe: { devices: ["nothing"] } });
  await once(s, "snapshot");
  const gone = [];
  s.on("disconnect", (why) => gone.push(why));
  await new Promise((resolve) => setTimeout(resolve, 2500));
  check("a client that waits is left alone", gone.length === 0 && s.connected, gone);
  s.disconnect();
}

async function rooms() {
  const [a, b] = [connect({ token: "viewer" }), connect({ token: "operator" })];
  await Promise.all([once(a, "welcome"), once(b, "welcome")]);
  const people = once(a, "people");
  await a.emitWithAck("join", "lobby");
  check("people are listed", (await people)[0].people[0].id === a.id);
  const heard = once(a, "message");
  await b.emitWithAck("message", "hi", new Uint8Array([1, 2]));
  const [text, data, from] = await heard;
  check("a message is relayed", text === "hi" && bytes(data) === "1,2" && from.from === b.id, [text, from]);
  const denied = await a.emitWithAck("emit", "lobby", "reading", 1);
  check("nobody speaks for the hub", denied.error.includes("clients cannot send it"), denied);
  const command = await b.emitWithAck("command", "room", "reboot");
  check("commands are reserved", command.error.includes("not available yet"), command);

  const id = a.id;
  const texts = [];
  a.on("message", (text) => texts.push(text));
  await b.emitWithAck("message", "one");
  const back = once(a, "connect");
  await drop();
  for (const text of ["two", "three", "four"]) await b.emitWithAck("message", text);
  await back;
  check("the client is recovered", a.recovered === true && a.id === id, [a.recovered, a.id, id]);
  await b.emitWithAck("message", "five");
  await until("messages go on", () => texts.at(-1) === "five");
  check("and none was missed or doubled", texts.join() === "one,two,three,four,five", texts);
  a.disconnect();
  b.disconnect();
}

// No reading is missed or doubled, whenever the connection breaks or the hub is killed.
async function oracle() {
  const s = connect({ token: "viewer", subscribe: { mode: "all", devices: ["room"] } });
  const got = [];
  s.on("reading", (frame) => got.push(...frame.readings.map((r) => r[3])));
  let snapshots = 0;
  s.on("snapshot", () => snapshots++);
  const welcomes = [];
  s.on("welcome", (_, info) => welcomes.push(info.resumed));
  await once(s, "snapshot");
  const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  let value = 1000;
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < 30; i++) {
      await post(value++);
      if (round % 2 === 0 && i === 20) await drop();
    }
    if (round % 2 === 1) {
      const back = once(s, "connect");
      console.log("kill");
      await answers.next();
      await post(value++);
      await back;
    }
  }
  await until("all readings arrive", () => got.length >= value - 1000 && got.at(-1) === value - 1);
  check("each once and in order", got.every((v, i) => v === 1000 + i) && got.length === value - 1000, got);
  check("without starting over", snapshots === 1 && welcomes.slice(1).every((r) => r === true), [snapshots, welcomes]);
  s.disconnect();
}

for (const part of [refusals, greeting, echoes, patience, rooms, oracle]) await part();
console.log("passed");
for (const s of clients) s.disconnect();
process.exit(0);
