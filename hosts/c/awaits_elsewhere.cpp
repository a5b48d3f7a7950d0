/* The second file of the program awaits.cpp: both include the library's header. */
#include "geo.hpp"

namespace geo {
std::string message_elsewhere() { return last_message(); }
} // namespace geo
