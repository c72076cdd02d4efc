// What a program with the package ws of npm does: node stock.mjs <package.json of ws> <ws: address of the viewers> <devices>.
// It says "ok …" for each claim that holds, "ready" when readings may come, and "passed" at the end.
import { createRequire } from "node:module";

const [, , modules, url, devices] = process.argv;
const WebSocket = createRequire(modules)("ws");
const last = 99;
const check = (claim, ok, got) => {
  if (!ok) throw new Error(`not so: ${claim}: ${JSON.stringify(got)}`);
  console.log(`ok ${claim}`);
};
const late = setTimeout(() => {
  throw new Error("not everything came");
}, 20000);

// follow resolves to what was seen when the last value has come. snapshot is called when that is complete.
const follow = (mode, protocol, snapshot) =>
  new Promise((resolve, reject) => {
    const s = new WebSocket(url, protocol ? [protocol] : [], { headers: { Authorization: "Bearer viewer" } });
    const state = new Map();
    const list = [];
    s.on("error", reject);
    s.on("close", (code, reason) => reject(new Error(`closed with ${code} ${reason}`)));
    s.on("open", () => {
      check(`${mode}: compression is agreed on`, s.extensions === "permessage-deflate", s.extensions);
      // It is so long that the client compresses it.
      const patterns = ["room-*", ...Array.from({ length: 60 }, (_, i) => `another-device-that-is-not-there-${i}`)];
      s.send(JSON.stringify({ subscribe: { mode, tick: -1, devices: patterns } }));
    });
    s.on("message", (data) => {
      const frame = JSON.parse(data);
      for (const d of frame.devices ?? []) state.set(d.id, d.metrics.n?.v ?? state.get(d.id));
      for (const [id, metric, , value] of frame.readings ?? []) {
        if (metric !== "n") continue;
        state.set(id, value);
        list.push(value);
      }
      if (frame.type === "snapshot" && !frame.more) {
        check(`${mode}: a snapshot of all devices`, state.size === Number(devices) && [...state.values()].every((v) => v === -1), state.size);
        snapshot();
      }
      if (state.get("room-0") === last) {
        s.removeAllListeners("close");
        s.close();
        resolve({ state, list });
      }
    });
  });

let waiting = 2;
const ready = () => --waiting || console.log("ready");
const [all, latest] = await Promise.all([follow("all", "hub.v1.json", ready), follow("latest", "", ready)]);
check("all: each once and in order", all.list.length === last + 1 && all.list.every((v, i) => v === i), all.list);
check("latest: the newest values", latest.state.get("room-0") === last && latest.state.get("room-1") === -1, latest.list);
clearTimeout(late);
console.log("passed");
