// Speaks to the broker at the address in the first argument with the client that most programs for Node use, in the version
// of MQTT in the second, and prints what came of it as JSON.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../../dashboard/web/package.json', import.meta.url));
const mqtt = require('mqtt');
const [, , url, version, device, viewer, operator] = process.argv;

const open = (clientId, password) =>
  mqtt.connectAsync(url, { protocolVersion: Number(version), clientId, username: 'x', password, reconnectPeriod: 0, connectTimeout: 5000 });
const result = { refused: '', granted: [], messages: [] };

try {
  await open('x', 'guess');
} catch (err) {
  result.refused = err.message;
}

const pi = await open('pi-1', device);
const watcher = await open('watcher', viewer);
const boss = await open('boss', operator);
const two = new Promise((resolve) => {
  const take = (topic, payload, packet) => {
    result.messages.push([topic, payload.toString(), packet.qos]);
    if (result.messages.length === 2) resolve();
  };
  pi.on('message', take);
});
for (const qos of [0, 1, 2]) await pi.publishAsync('ingest/pi-1', JSON.stringify({ n: qos }), { qos });
result.granted = (await pi.subscribeAsync('telemetry/pi-1/cmd/#', { qos: 2 })).map((g) => g.qos);
await watcher.subscribeAsync('telemetry/#', { qos: 1 });
const seen = new Promise((resolve) => watcher.once('message', (topic) => resolve(topic)));
await boss.publishAsync('telemetry/pi-1/cmd/led', 'on', { qos: 1 });
await boss.publishAsync('telemetry/pi-1/cmd/led', 'off', { qos: 2 });
await two;
result.seen = await seen;
await Promise.all([pi.endAsync(), watcher.endAsync(), boss.endAsync()]);
console.log(JSON.stringify(result));
