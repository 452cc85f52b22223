#include SKETCH

int main() {
  setup();
  while (true) loop();
}
