// What the sketch asks of the ESP32's Arduino core, on this machine. Types and names are the core's (version 3).
#pragma once
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

using String = std::string;

inline unsigned long millis() {
  static const auto start = std::chrono::steady_clock::now();
  using std::chrono::milliseconds;
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start).count();
}

inline void delay(uint32_t ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

struct Console {
  void begin(unsigned long) {}
  void printf(const char *format, ...) __attribute__((format(printf, 2, 3))) {
    va_list more;
    va_start(more, format);
    vprintf(format, more);
    va_end(more);
    fflush(stdout);
  }
};

inline Console Serial;
