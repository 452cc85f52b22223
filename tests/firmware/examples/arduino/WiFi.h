#pragma once

struct Radio {
  void begin(const char *, const char *) {}  // this machine has its network
};

inline Radio WiFi;
