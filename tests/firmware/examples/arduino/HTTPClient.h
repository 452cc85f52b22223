// A request is made by curl: TLS, certificates and HTTP are real. As on the board nothing is trusted but setCACert's.
#pragma once
#include <Arduino.h>
#include <NetworkClientSecure.h>
#include <cstdlib>
#include <fstream>

class HTTPClient {
 public:
  void setTimeout(uint16_t ms) { _timeout_s = ms / 1000.0; }

  bool begin(NetworkClient &client, String url) {
    std::ofstream("ca.pem") << (client.ca ? client.ca : "");
    _url = url;
    return url.rfind("https://", 0) == 0;
  }

  void addHeader(const String &name, const String &value) {
    _headers += "header = \"" + name + ": " + value + "\"\n";
  }

  int POST(String payload) {
    std::ofstream("body") << payload;
    std::ofstream("request") << "url = \"" + _url + "\"\n" + _headers + "data-binary = @body\ncacert = ca.pem\nsilent\n"
                             << "output = /dev/null\nwrite-out = %{http_code}\nmax-time = " << _timeout_s << "\n";
    FILE *curl = popen("curl --disable --config request", "r");
    int status = 0;
    bool answered = curl && fscanf(curl, "%d", &status) == 1 && status;
    if (curl) pclose(curl);
    return answered ? status : -1;  // HTTPC_ERROR_CONNECTION_REFUSED
  }

  void end() {}

 private:
  String _url, _headers;
  double _timeout_s = 5;
};
