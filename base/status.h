// Result<T>: how every fallible function of Hatchery answers.
//
// An Error carries one of gRPC's canonical codes and a message for people that says what was wrong,
// where, and what to do about it. Errors travel by value; context is added on the way up with
// Annotate(). Exceptions are for bugs only. Values of any of these types are free to move between
// threads.
#pragma once

#include <chrono>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace hatchery {

// gRPC's canonical status codes, with gRPC's numbers, so that the gRPC edge converts by a cast.
enum class Code {
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

// "NOT_FOUND" and so on: the names that gRPC's documentation uses.
std::string_view CodeName(Code code);

struct Error {
  Code code = Code::kUnknown;
  std::string message;
  // The offending field of the caller's request, by its name in the request ("memory_mib"), or
  // empty. Set with kInvalidArgument; the gRPC edge sends it as a google.rpc.BadRequest violation.
  std::string field = {};
  // When it makes sense to try again; 0: not known. Set with kResourceExhausted and kUnavailable;
  // the gRPC edge sends it as a google.rpc.RetryInfo.
  std::chrono::milliseconds retry_after = {};
};

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

// The usual ways to make an error: `return NotFound("no template named 'x'")`.
std::unexpected<Error> MakeError(Code code, std::string message);
std::unexpected<Error> Cancelled(std::string message);
std::unexpected<Error> InvalidArgument(std::string field, std::string message);
std::unexpected<Error> DeadlineExceeded(std::string message);
std::unexpected<Error> NotFound(std::string message);
std::unexpected<Error> AlreadyExists(std::string message);
std::unexpected<Error> ResourceExhausted(std::string message);
// With a hint when to try again.
std::unexpected<Error> ResourceExhausted(std::string message,
                                         std::chrono::milliseconds retry_after);
std::unexpected<Error> Unavailable(std::string message, std::chrono::milliseconds retry_after);
std::unexpected<Error> OutOfRange(std::string message);
std::unexpected<Error> PermissionDenied(std::string message);
std::unexpected<Error> FailedPrecondition(std::string message);
std::unexpected<Error> Unimplemented(std::string message);
std::unexpected<Error> Internal(std::string message);
std::unexpected<Error> Unavailable(std::string message);
std::unexpected<Error> Aborted(std::string message);
std::unexpected<Error> DataLoss(std::string message);

// `error` with `context` and ": " before its message.
std::unexpected<Error> Annotate(Error error, std::string_view context);

// The error of a failed system call: the code that fits `error_number` (errno), and a message of
// the form "<what>: <strerror text>".
std::unexpected<Error> ErrnoError(int error_number, std::string_view what);

// "NOT_FOUND: no template named 'x'", for logs.
std::string ToString(const Error& error);

}  // namespace hatchery

// Early return on error. The CO_ forms are for coroutines.
#define HATCHERY_CONCAT_INNER(a, b) a##b
#define HATCHERY_CONCAT(a, b) HATCHERY_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)              \
  do {                                           \
    if (auto status_ = (expression); !status_) { \
      return std::unexpected(status_.error());   \
    }                                            \
  } while (false)

#define CO_RETURN_IF_ERROR(expression)            \
  do {                                            \
    if (auto status_ = (expression); !status_) {  \
      co_return std::unexpected(status_.error()); \
    }                                             \
  } while (false)

#define ASSIGN_OR_RETURN_INNER(result, declaration, expression)   \
  auto result = (expression);                                     \
  if (!result) return std::unexpected(std::move(result).error()); \
  declaration = *std::move(result)
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(HATCHERY_CONCAT(result_, __LINE__), declaration, expression)

#define ASSIGN_OR_CO_RETURN_INNER(result, declaration, expression)   \
  auto result = (expression);                                        \
  if (!result) co_return std::unexpected(std::move(result).error()); \
  declaration = *std::move(result)
#define ASSIGN_OR_CO_RETURN(declaration, expression) \
  ASSIGN_OR_CO_RETURN_INNER(HATCHERY_CONCAT(result_, __LINE__), declaration, expression)
