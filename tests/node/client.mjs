// A client of rt in another language: MessagePack-RPC over a ZMQ DEALER. Arguments: address, then where to find the packages.
// Prints one JSON object of what it has learned.
import { createRequire } from "node:module";

const [address, home] = process.argv.slice(2);
const require = createRequire(home + "/");
const zmq = require("zeromq");
const { decode, encode } = require("@msgpack/msgpack");

const socket = new zmq.Dealer({ linger: 0, receiveTimeout: 20000, sendTimeout: 20000 });
socket.connect(address);
let number = 0;

async function call(service, method, ...params) {
  number += 1;
  await socket.send([service, encode([0, number, method, params])]);
  const [sender, payload] = await socket.receive();
  const [kind, answered, error, result] = decode(payload);
  if (sender.toString() !== service || kind !== 1 || answered !== number) throw new Error("a wrong answer");
  return { error, result };
}

const learned = {
  list_uids: await call("device-service", "list_uids"),
  describe: Object.keys((await call("executor-service", "describe")).result).sort(),
  teleop: await call("executor-service", "teleop"),
  mode: await call("executor-service", "mode"),
  idle: await call("executor-service", "idle"),
  wrong: await call("device-service", "read", 5),
  absent: await call("nobody-service", "ping"),
};
await socket.send(["executor-service", encode([2, "idle", []])]);
learned.afterNotification = await call("executor-service", "mode");

// A service that ends is told only to peers that have asked for that: each answer is the next message.
const device = async () => (await call("broker-service", "status")).result.find((child) => child.name === "device");
const before = await device();
process.kill(before.pid, "SIGKILL");
const renewed = (child) => child.pid && child.pid !== before.pid && child.state === "ready";
while (!renewed(await device())) await new Promise((resolve) => setTimeout(resolve, 20));
do learned.afterRestart = await call("device-service", "list_uids");
while (learned.afterRestart.error);
console.log(JSON.stringify(learned));
socket.close();
