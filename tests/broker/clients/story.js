// The story of test_real_clients.py, told by mqtt.js: node story.js URL USERNAME PASSWORD
"use strict";
const { promisify } = require("util");
const mqtt = require("mqtt");

const [url, username, password] = process.argv.slice(2);
const topic = (name) => `devices/kitchen/${name}`;

async function open(clientId, options = {}) {
  const client = mqtt.connect(url, { clientId, username, password, reconnectPeriod: 0, ...options });
  client.heard = [];
  client.on("message", (name, payload, { qos, retain }) => {
    client.heard.push([name.slice(topic("").length), payload.toString(), qos, retain]);
    client.emit("heard");
  });
  await new Promise((resolve, reject) => client.once("connect", resolve).once("error", reject));
  client.say = promisify(client.publish.bind(client));
  client.listen = promisify(client.subscribe.bind(client));
  client.leave = promisify(client.end.bind(client, false));
  return client;
}

async function heard(client, count) {
  while (client.heard.length < count) await new Promise((resolve) => client.once("heard", resolve));
  return client.heard.splice(0);
}

async function story() {
  const told = {};
  let panel = await open("panel", { clean: false });
  await panel.listen(topic("status/#"), { qos: 2 });
  await panel.leave();

  const board = await open("board", { will: { topic: topic("status/will"), payload: "gone", qos: 1 } });
  for (const qos of [0, 1, 2]) await board.say(topic("status/said"), `${qos}`, { qos });
  await board.say(topic("name"), "kitchen", { qos: 1, retain: true });
  await board.say(topic("telemetry"), process.env.READING, { qos: 1 });
  const cut = new Promise((resolve) => board.once("close", resolve));
  board.stream.destroy();
  await cut;

  panel = await open("panel", { clean: false });
  told.missed = await heard(panel, 3);
  await panel.leave();

  const late = await open("late");
  await late.listen(topic("name"), { qos: 1 });
  told.retained = await heard(late, 1);
  await late.listen(topic("echo"), { qos: 2 });
  told.echoed = [];
  for (const qos of [0, 1, 2]) {
    await late.say(topic("echo"), `${qos}`, { qos });
    told.echoed.push(...(await heard(late, 1)));
  }
  await late.leave();
  console.log(JSON.stringify(told));
}

story().catch((error) => {
  console.error(error);
  process.exit(1);
});
