// The types of what is used here; those of the package name types of Node.js.

declare global {
  interface Window {
    tus: Tus;
  }
}

export interface Tus {
  Upload: new (file: File, options: UploadOptions) => Upload;
  defaultOptions: { urlStorage: { removeUpload(key: string): Promise<void> } };
}

export interface Upload {
  url: string | null;
  start(): void;
  abort(shouldTerminate?: boolean): Promise<void>;
  findPreviousUploads(): Promise<PreviousUpload[]>;
  resumeFromPreviousUpload(previous: PreviousUpload): void;
}

export interface PreviousUpload {
  uploadUrl: string | null;
  urlStorageKey: string;
}

export interface DetailedError extends Error {
  originalResponse?: { getStatus(): number; getBody(): string } | null;
}

export interface UploadOptions {
  endpoint: string;
  metadata: Record<string, string>;
  retryDelays: number[];
  uploadDataDuringCreation: boolean;
  removeFingerprintOnSuccess: boolean;
  fingerprint(file: File): Promise<string>;
  onProgress(sent: number, total: number): void;
  onSuccess(): void;
  onError(error: DetailedError): void;
}
