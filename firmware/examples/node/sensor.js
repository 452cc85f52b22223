// A reading every 10 s to a neurogate on the site, by MQTT over TLS; each is sent until the gateway has it on disk.
// node sensor.js HOST device.json ca.pem
"use strict";
const { randomBytes } = require("crypto");
const { readFileSync } = require("fs");
const mqtt = require("mqtt");

const PORT = 8883;
const EVERY_S = 10;
const MOST_WAITING = 10000; // so many wait in memory while the gateway is away; beyond, the newest are given up

const [host, deviceFile, caFile] = process.argv.slice(2);
const device = JSON.parse(readFileSync(deviceFile, "utf-8"));
const status = `devices/${device.device_id}/status`;
const kept = { qos: 1, retain: true };

function measure() {
  return { pir: { motion_detected: false } }; // what your sensors say
}

const client = mqtt.connect({
  protocol: "mqtts",
  host,
  port: PORT,
  ca: readFileSync(caFile),
  clientId: device.device_id,
  username: device.username,
  password: device.password,
  will: { topic: status, payload: JSON.stringify({ status: "offline" }), ...kept },
  reconnectPeriod: 2000,
  reconnectOnConnackError: true, // mqtt.js 5 gives up otherwise when it is not let in; 4 does not know it
});
client.on("connect", () => client.publish(status, JSON.stringify({ status: "online" }), kept));
client.on("error", (error) => console.error(error.message));

const bootId = randomBytes(4).toString("hex"); // new at each start: with it seq may begin at 1 again
let seq = 0;
let waiting = 0;

function send() {
  seq += 1;
  if (waiting >= MOST_WAITING) {
    console.error(`reading ${seq} is lost: ${waiting} wait already`);
    return;
  }
  const reading = {
    device_id: device.device_id,
    timestamp: new Date().toISOString(),
    boot_id: bootId,
    seq,
    sensors: measure(),
  };
  waiting += 1;
  // mqtt.js keeps it, and sends it again after each interruption, until its PUBACK is here
  client.publish(device.topics[0], JSON.stringify(reading), { qos: 1 }, () => {
    waiting -= 1;
  });
}

send();
setInterval(send, EVERY_S * 1000);
