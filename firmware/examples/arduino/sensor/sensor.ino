// A reading every 10 s to a neurogate on the site, by HTTPS; each is sent until the gateway has it on disk.
// For an ESP32 with Arduino core 3; no library besides. The password is the one of `neurogate device add`.
#include <Arduino.h>
#include <HTTPClient.h>
#include <NetworkClientSecure.h>
#include <WiFi.h>
#include <esp_random.h>

const char *WIFI_NAME = "NAME";
const char *WIFI_PASSWORD = "PASSWORD";
const char *URL = "https://raspberrypi.local:8443/api/v1/sensor-data";
const char *DEVICE_ID = "esp32-hall";
const char *DEVICE_PASSWORD = "PASSWORD";
const char *SITE_CA = R"(what `neurogate certs show --ca` prints, all of it
)";

const uint32_t EVERY_MS = 10000;
const size_t MOST_WAITING = 100;  // so many wait in memory while the gateway is away; beyond, the oldest are given up

struct Reading {
  uint32_t seq;
  uint32_t measured_ms;
  bool motion;
};

Reading waiting[MOST_WAITING];  // the oldest first
size_t count = 0;
uint32_t seq = 0;
uint32_t boot_id = 0;
NetworkClientSecure tls;

bool motion() {
  return false;  // what your sensor says
}

void forget_oldest() {
  count--;
  memmove(waiting, waiting + 1, count * sizeof(Reading));
}

// Returns whether the gateway is done with it.
bool deliver(const Reading &reading) {
  char body[300];
  uint32_t age_ms = millis() - reading.measured_ms;  // instead of a time: a board has no clock
  snprintf(body, sizeof(body),
           "{\"device_id\":\"%s\",\"boot_id\":\"%08lx\",\"seq\":%lu,\"age_ms\":%lu,"
           "\"sensors\":{\"pir\":{\"motion_detected\":%s}}}",
           DEVICE_ID, (unsigned long)boot_id, (unsigned long)reading.seq, (unsigned long)age_ms,
           reading.motion ? "true" : "false");
  HTTPClient http;
  http.setTimeout(15000);
  if (!http.begin(tls, URL)) return false;
  http.addHeader("content-type", "application/json");
  http.addHeader("x-api-key", DEVICE_PASSWORD);
  int status = http.POST(body);
  http.end();
  if (status == 202) return true;  // it is on disk
  Serial.printf("reading %lu: %d\n", (unsigned long)reading.seq, status);
  return status == 400;  // it will never be a good one; anything else is tried again: 401, 429, 503, no connection
}

void setup() {
  Serial.begin(115200);
  tls.setCACert(SITE_CA);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  boot_id = esp_random();  // new at each start (random when the radio is on): with it `seq` may begin at 1 again
}

void loop() {
  if (count == MOST_WAITING) forget_oldest();
  waiting[count++] = {++seq, (uint32_t)millis(), motion()};
  while (count && deliver(waiting[0])) forget_oldest();
  delay(EVERY_MS);
}
