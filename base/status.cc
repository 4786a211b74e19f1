#include "base/status.h"

#include <cerrno>
#include <cstring>

namespace hatchery {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kCancelled: return "CANCELLED";
    case Code::kUnknown: return "UNKNOWN";
    case Code::kInvalidArgument: return "INVALID_ARGUMENT";
    case Code::kDeadlineExceeded: return "DEADLINE_EXCEEDED";
    case Code::kNotFound: return "NOT_FOUND";
    case Code::kAlreadyExists: return "ALREADY_EXISTS";
    case Code::kPermissionDenied: return "PERMISSION_DENIED";
    case Code::kResourceExhausted: return "RESOURCE_EXHAUSTED";
    case Code::kFailedPrecondition: return "FAILED_PRECONDITION";
    case Code::kAborted: return "ABORTED";
    case Code::kOutOfRange: return "OUT_OF_RANGE";
    case Code::kUnimplemented: return "UNIMPLEMENTED";
    case Code::kInternal: return "INTERNAL";
    case Code::kUnavailable: return "UNAVAILABLE";
    case Code::kDataLoss: return "DATA_LOSS";
  }
  return "UNKNOWN";
}

std::unexpected<Error> MakeError(Code code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}
std::unexpected<Error> Cancelled(std::string message) {
  return MakeError(Code::kCancelled, std::move(message));
}
std::unexpected<Error> InvalidArgument(std::string field, std::string message) {
  std::string text = field.empty() ? std::move(message) : field + ": " + message;
  return std::unexpected(Error{Code::kInvalidArgument, std::move(text), std::move(field)});
}
std::unexpected<Error> DeadlineExceeded(std::string message) {
  return MakeError(Code::kDeadlineExceeded, std::move(message));
}
std::unexpected<Error> NotFound(std::string message) {
  return MakeError(Code::kNotFound, std::move(message));
}
std::unexpected<Error> AlreadyExists(std::string message) {
  return MakeError(Code::kAlreadyExists, std::move(message));
}
std::unexpected<Error> ResourceExhausted(std::string message,
                                         std::chrono::milliseconds retry_after) {
  return std::unexpected(Error{Code::kResourceExhausted, std::move(message), {}, retry_after});
}
std::unexpected<Error> Unavailable(std::string message, std::chrono::milliseconds retry_after) {
  return std::unexpected(Error{Code::kUnavailable, std::move(message), {}, retry_after});
}
std::unexpected<Error> OutOfRange(std::string message) {
  return MakeError(Code::kOutOfRange, std::move(message));
}
std::unexpected<Error> PermissionDenied(std::string message) {
  return MakeError(Code::kPermissionDenied, std::move(message));
}
std::unexpected<Error> ResourceExhausted(std::string message) {
  return MakeError(Code::kResourceExhausted, std::move(message));
}
std::unexpected<Error> FailedPrecondition(std::string message) {
  return MakeError(Code::kFailedPrecondition, std::move(message));
}
std::unexpected<Error> Unimplemented(std::string message) {
  return MakeError(Code::kUnimplemented, std::move(message));
}
std::unexpected<Error> Internal(std::string message) {
  return MakeError(Code::kInternal, std::move(message));
}
std::unexpected<Error> Unavailable(std::string message) {
  return MakeError(Code::kUnavailable, std::move(message));
}
std::unexpected<Error> Aborted(std::string message) {
  return MakeError(Code::kAborted, std::move(message));
}
std::unexpected<Error> DataLoss(std::string message) {
  return MakeError(Code::kDataLoss, std::move(message));
}

std::unexpected<Error> Annotate(Error error, std::string_view context) {
  error.message = std::string(context) + ": " + error.message;
  return std::unexpected(std::move(error));
}

namespace {

Code CodeOfErrno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ESRCH: return Code::kNotFound;
    case EEXIST: return Code::kAlreadyExists;
    case EACCES:
    case EPERM: return Code::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return Code::kResourceExhausted;
    case ECANCELED: return Code::kCancelled;
    case ETIMEDOUT: return Code::kDeadlineExceeded;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EAGAIN: return Code::kUnavailable;
    case EINVAL:
    case ENAMETOOLONG: return Code::kInvalidArgument;
    default: return Code::kInternal;
  }
}

}  // namespace

std::unexpected<Error> ErrnoError(int error_number, std::string_view what) {
  return MakeError(CodeOfErrno(error_number),
                   std::string(what) + ": " + std::strerror(error_number));
}

std::string ToString(const Error& error) {
  return std::string(CodeName(error.code)) + ": " + error.message;
}

}  // namespace hatchery
