#pragma once

struct NetworkClient {
  const char *ca = nullptr;
};

struct NetworkClientSecure : NetworkClient {
  void setCACert(const char *pem) { ca = pem; }
};
